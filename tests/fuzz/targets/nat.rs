//! What is said of NATs: profiles as they travel and as they are kept.

#![no_main]

use libfuzzer_sys::fuzz_target;
use p2sp_proto::traversal::nat::Profile;

fuzz_target!(|bytes: &[u8]| {
    let profile = Profile::decode(bytes);
    assert_eq!(Profile::decode(&profile.encode()), profile, "as it travels");
    if let Ok(profile) = serde_json::from_slice::<Profile>(bytes) {
        let written = serde_json::to_vec(&profile).expect("what was read can be written");
        let read: Profile = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(read, profile, "as it is kept");
        let _ = profile.encode();
    }
});
