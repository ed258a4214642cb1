//! Names: who has one, who changes it, who is believed.

use super::*;

#[test]
fn a_rename_to_a_pinned_name_is_not_believed() {
    let mut net = Net::new();
    let mut a = config(1, "alice");
    a.known = vec![Known { name: "bob".parse().unwrap(), key: key(9).public(), boot: Boot(1) }];
    net.add(1, a);
    net.add(2, config(2, "mallory"));
    net.start(1);
    net.start(2);
    net.run(second(1));
    net.send(2, 1, "alice", "hi");
    net.run(second(2));
    net.command(2, Command::Register { name: "bob".parse().unwrap() });
    net.run(second(2));
    net.send(2, 2, "alice", "send me the password");
    net.run(second(2));
    assert!(net.host(1).messages.iter().all(|(from, _)| from != "bob"));
}

#[test]
fn a_refused_rename_keeps_the_old_name_for_later() {
    let mut net = Net::of_two();
    net.command(1, Command::Register { name: "bob".parse().unwrap() });
    net.run(second(1));
    net.restart_hub();
    net.run(second(60));
    let who = net.host(1).node.whoami();
    assert!(who.registered);
}

#[test]
fn a_name_given_while_the_server_is_away_counts() {
    let mut net = Net::of_two();
    net.drops = |_| true;
    net.restart_hub();
    net.run(second(40));
    net.command(1, Command::Register { name: "carol".parse().unwrap() });
    net.run(second(3));
    net.drops = |_| false;
    net.run(second(30));
    let who = net.host(1).node.whoami();
    assert_eq!(who.name.unwrap().as_str(), "carol");
}
