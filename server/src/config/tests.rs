use super::*;

fn layer(text: &str) -> Layer {
    Layer::parse(Path::new("r.toml"), text).unwrap()
}

fn problem(text: &str) -> String {
    Layer::parse(Path::new("r.toml"), text).unwrap_err().to_string()
}

fn settings(layer: Layer) -> Result<Settings, ConfigError> {
    Settings::new(layer, |_| None)
}

fn tokens(text: &str) -> Result<Tokens, ConfigError> {
    Tokens::parse(Path::new("tokens"), text)
}

#[test]
fn defaults_are_those_of_the_help() {
    let settings = settings(Layer::default()).unwrap();
    assert_eq!(settings.listen, Listen::Default(3478));
    assert_eq!(settings.alt_port, AltPort::Next);
    assert_eq!((settings.expire_intervals, settings.broadcast_max), (3, 256));
    assert_eq!((settings.log, settings.log_format), (Level::Info, LogFormat::Text));
    assert_eq!(settings.console, ConsoleMode::Auto);
    assert_eq!(settings.data_dir, Path::new("/var/lib/p2sp/rendezvous"));
}

#[test]
fn a_stronger_layer_wins_setting_by_setting() {
    let file = layer("listen = '127.0.0.1'\nalt-port = 'off'\nlog = 'debug'\nbroadcast-max = 9");
    let flags =
        Layer { log: Some(Level::Warn), alt_port: Some(AltPort::At(5)), ..Layer::default() };
    let settings = settings(flags.over(file)).unwrap();
    assert_eq!(settings.listen, Listen::At(vec![([127, 0, 0, 1], 3478).into()]));
    assert_eq!(settings.alt_port, AltPort::At(5));
    assert_eq!(settings.log, Level::Warn);
    assert_eq!(settings.broadcast_max, 9);
}

#[test]
fn a_file_says_everything_that_flags_say() {
    let layer = layer(
        "listen = ['[::1]:5', '127.0.0.1:6']\nalt-port = 7\nexternal-ip = '192.0.2.1'\n\
         alt-ip = '192.0.2.2/10.0.0.2'\ndata-dir = 'd'\ntoken-file = 't'\nexpire-intervals = 4\nbroadcast-max = 5\n\
         log = 'trace'\nlog-format = 'json'\nconsole = 'off'",
    );
    assert_eq!(
        layer,
        Layer {
            listen: Some(vec!["[::1]:5".parse().unwrap(), "127.0.0.1:6".parse().unwrap()]),
            alt_port: Some(AltPort::At(7)),
            external_ip: Some([192, 0, 2, 1].into()),
            alt_ip: Some("192.0.2.2/10.0.0.2".parse().unwrap()),
            data_dir: Some("d".into()),
            token_file: Some("t".into()),
            expire_intervals: Some(4),
            broadcast_max: Some(5),
            log: Some(Level::Trace),
            log_format: Some(LogFormat::Json),
            console: Some(ConsoleMode::Off),
        }
    );
}

#[test]
fn a_second_ip_may_be_translated() {
    let AltIp(plain) = "192.0.2.2".parse().unwrap();
    assert_eq!((plain.local, plain.public), ([192, 0, 2, 2].into(), [192, 0, 2, 2].into()));
    let AltIp(translated) = "192.0.2.2/10.0.0.2".parse().unwrap();
    assert_eq!((translated.local, translated.public), ([10, 0, 0, 2].into(), plain.public));
    for wrong in ["", "/", "192.0.2.2/", "192.0.2.2/::1", "0.0.0.0", "192.0.2.2:3478", "a"] {
        assert!(wrong.parse::<AltIp>().is_err(), "{wrong:?}");
    }
    let alone = layer("alt-ip = '192.0.2.2'\nalt-port = 'off'");
    assert!(settings(alone).unwrap_err().to_string().contains("--alt-port off"));
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, parts) in [
        ("log = 'info'\nlisen = 'x'", ["line 2", "lisen"]),
        ("\n\nbroadcast-max = 'many'", ["line 3", "key broadcast-max"]),
        ("alt-port = 'on'", ["line 1", "neither a port nor off"]),
        ("listen = ['nowhere']", ["line 1", "nowhere"]),
        ("log = 'info", ["line 1", "r.toml"]),
        ("log = 'loud'", ["key log", "loud"]),
    ] {
        let problem = problem(text);
        assert!(parts.iter().all(|part| problem.contains(part)), "{text:?}: {problem}");
        assert!(!problem.contains('\n'), "{problem:?}");
    }
}

#[test]
fn paths_in_a_file_start_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    fs::write(&path, "data-dir = 'd'\ntoken-file = '/t'").unwrap();
    let layer = Layer::read(&path).unwrap();
    assert_eq!(layer.data_dir, Some(folder.path().join("d")));
    assert_eq!(layer.token_file, Some("/t".into()));
    let missing = Layer::read(&folder.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn impossible_values_are_refused() {
    for text in [
        "expire-intervals = 0",
        "broadcast-max = 0",
        "listen = []",
        "listen = ['127.0.0.1:1', '127.0.0.1:1']",
    ] {
        assert!(settings(layer(text)).is_err(), "{text}");
    }
}

#[test]
fn listen_addresses_have_a_default_port() {
    for (text, address) in [
        ("192.0.2.1", "192.0.2.1:3478"),
        ("192.0.2.1:99", "192.0.2.1:99"),
        ("::1", "[::1]:3478"),
        ("[::1]", "[::1]:3478"),
        ("[::]:0", "[::]:0"),
    ] {
        assert_eq!(text.parse(), Ok(ListenAddress(address.parse().unwrap())), "{text}");
    }
    assert!("example.org".parse::<ListenAddress>().is_err());
}

#[test]
fn the_data_folder_follows_the_home() {
    let with = |pairs: &'static [(&str, &str)]| {
        default_data_dir(move |name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let home = with(&[("HOME", "/home/op"), ("XDG_DATA_HOME", "")]);
    assert_eq!(home, Path::new("/home/op/.local/share/p2sp/rendezvous"));
    let xdg = with(&[("HOME", "/home/op"), ("XDG_DATA_HOME", "/data")]);
    assert_eq!(xdg, Path::new("/data/p2sp/rendezvous"));
}

#[test]
fn tokens_are_read_with_networks_and_comments() {
    let found = tokens(
        "\u{feff}# ours\r\n\r\nteam.0123456789abcdef  home # comment\nguest.x.y#z-0123456789\n",
    )
    .unwrap();
    let read: Vec<_> = found
        .tokens
        .iter()
        .map(|t| (t.id.as_str(), t.secret.as_str(), t.network.as_str()))
        .collect();
    let expected = [("team", "0123456789abcdef", "home"), ("guest", "x.y#z-0123456789", "default")];
    assert_eq!(read, expected);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn bad_token_lines_are_named_without_their_secret() {
    for line in [
        "nodot-hunter2",
        ".hunter2",
        "id.",
        "i/d.hunter2",
        "id.hunter2 net extra",
        "id.hunter2 net/work",
        "first.hunter2",
    ] {
        let error = tokens(&format!("first.0123456789abcdef\n{line}\n")).err().unwrap().to_string();
        assert!(error.contains("\"tokens\", line 2"), "{line}: {error}");
        assert!(!error.contains("hunter2"), "{line}: {error}");
    }
}

#[test]
fn a_file_without_tokens_does_not_open_the_server() {
    assert!(matches!(tokens("# later\n\n"), Err(ConfigError::NoToken(_))));
}

#[test]
fn careless_token_files_bring_warnings() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    fs::write(&path, "id.short").unwrap();
    for (mode, warnings) in [(0o644, 2), (0o600, 1)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Tokens::read(&path).unwrap().warnings.len(), warnings);
    }
    fs::write(&path, [0xFF, 0xFE]).unwrap();
    assert!(matches!(Tokens::read(&path), Err(ConfigError::NotText { .. })));
}
