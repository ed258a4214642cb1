//! Text: requests, answers, names and keys.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2sp_proto::control::{FromServer, Request};
use p2sp_proto::id::{PeerKey, PeerName};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    comes_back::<Request>(bytes);
    comes_back::<FromServer>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = PeerName::new(text) {
        assert!(name.as_str().len() <= PeerName::LEN_MAX);
        assert_eq!(PeerName::new(name.as_str()).as_ref(), Ok(&name), "a name of a name");
    }
    if let Ok(key) = text.parse::<PeerKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
});

/// What is understood is written so that it is understood the same.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let read = serde_json::from_slice::<T>(&written).expect("what was written can be read");
    assert_eq!(read, value);
}
