//! The ways out of this host, as the kernel lists them (Linux; elsewhere none are known).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
#[cfg(feature = "portmap")]
use std::net::{SocketAddr, SocketAddrV6};

/// A default route: one for each address family, that of the smallest metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DefaultRoute {
    /// The next hop; unspecified where the link needs none.
    pub(crate) gateway: IpAddr,
    /// The interface it leads through.
    pub(crate) interface: String,
}

#[cfg(feature = "portmap")]
impl DefaultRoute {
    /// The router at the other end, if there is one; its port means nothing.
    pub(crate) fn router(&self) -> Option<SocketAddr> {
        match self.gateway {
            gateway if gateway.is_unspecified() => None,
            IpAddr::V4(four) => Some(SocketAddr::new(four.into(), 0)),
            IpAddr::V6(six) => {
                // An address of the link means nothing without the number of the interface.
                let interfaces = if_addrs::get_if_addrs().ok()?;
                let of_route = interfaces.iter().find(|i| i.name == self.interface);
                Some(SocketAddrV6::new(six, 0, 0, of_route?.index?).into())
            }
        }
    }
}

/// All there are now.
pub(super) fn default_routes() -> Vec<DefaultRoute> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let four = best(read("/proc/net/route").lines().filter_map(route_v4));
    let six = best(read("/proc/net/ipv6_route").lines().filter_map(route_v6));
    four.into_iter().chain(six).collect()
}

fn best(routes: impl Iterator<Item = (u32, DefaultRoute)>) -> Option<DefaultRoute> {
    routes.min().map(|(_, route)| route)
}

/// `RTF_UP` and `RTF_REJECT` of route(8).
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// A line of /proc/net/route with its metric, if it is a default route. Fields: interface,
/// destination, gateway, flags, references, use, metric, mask; addresses in the order of bytes
/// of this machine.
fn route_v4(line: &str) -> Option<(u32, DefaultRoute)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else {
        return None;
    };
    let is_default = hex(destination)? == 0 && hex(mask)? == 0 && leads_out(hex(flags)?);
    let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes()).into();
    let route = DefaultRoute { gateway, interface: interface.to_owned() };
    is_default.then_some((metric.parse().ok()?, route))
}

/// A line of /proc/net/ipv6_route with its metric, if it is a default route. Fields:
/// destination, its prefix length, source, its prefix length, gateway, metric, references, use,
/// flags, interface.
fn route_v6(line: &str) -> Option<(u32, DefaultRoute)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, gateway, metric, _, _, flags, interface] = fields[..] else {
        return None;
    };
    let to_all = u128::from_str_radix(destination, 16).ok()? == 0 && hex(length)? == 0;
    let is_default = to_all && leads_out(hex(flags)?);
    let gateway = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?).into();
    let route = DefaultRoute { gateway, interface: interface.to_owned() };
    is_default.then_some((hex(metric)?, route))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

const fn leads_out(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(gateway: &str, interface: &str) -> DefaultRoute {
        DefaultRoute { gateway: gateway.parse().unwrap(), interface: interface.to_owned() }
    }

    #[test]
    fn the_default_route_of_the_smallest_metric_counts() {
        let gateway = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let (near, far) = (gateway([192, 168, 1, 1]), gateway([10, 0, 0, 1]));
        let lines = [
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT".to_owned(),
            format!("wlan0 00000000 {far} 0003 0 0 600 00000000 0 0 0"),
            format!("eth0 00000000 {near} 0003 0 0 100 00000000 0 0 0"),
            "eth0 0001A8C0 00000000 0001 0 0 50 00FFFFFF 0 0 0".to_owned(),
            "eth1 00000000 00000000 0201 0 0 1 00000000 0 0 0".to_owned(),
            "nonsense".to_owned(),
        ];
        let found = best(lines.iter().filter_map(|line| route_v4(line)));
        assert_eq!(found, Some(route("192.168.1.1", "eth0")));
    }

    #[test]
    fn ipv6_routes_are_read_too() {
        let zero = "0".repeat(32);
        let router = format!("fe80{}1", "0".repeat(27));
        let lines = [
            format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo"),
            format!("{zero} 00 {zero} 00 {router} 00000400 1 0 00450003 eth0"),
            format!("20010db8{} 40 {zero} 00 {zero} 00000100 1 0 00000001 eth1", "0".repeat(24)),
        ];
        let found = best(lines.iter().filter_map(|line| route_v6(line)));
        assert_eq!(found, Some(route("fe80::1", "eth0")));
    }
}
