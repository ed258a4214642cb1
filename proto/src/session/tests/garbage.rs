//! Whatever bytes come in, nothing panics and nothing is believed.

use proptest::prelude::*;

use super::*;
use crate::wire::{HANDSHAKE_INIT_LEN, VERSION};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_harm_nobody(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        first in prop::sample::select(vec![4_u8, 5, 6, 7, 8, 9, 11]),
        named in prop_oneof![Just(0xA1A2_A3A4_u32), Just(0xB1B2_B3B4), any::<u32>()],
        proper: bool,
    ) {
        if let (true, Some(head)) = (proper, bytes.get_mut(..5)) {
            head[0] = first;
            head[1..].copy_from_slice(&named.to_be_bytes());
        }
        let jar = CookieJar::new([3; 32], start());
        prop_assert!(screen_init(&bytes, &key(2).public()).is_err());
        prop_assert!(jar.retry(&bytes, address(), start()).is_none());
        prop_assert!(!jar.is_valid(&bytes, address(), start()));
        prop_assert!(accept(&bytes, Responder::Peer).is_err());
        prop_assert!(!is_reset(&bytes, Token(1), &[0; 16]));
        let _ = (versions_reply(&bytes), init_id(&bytes));

        let mut ours = initiator(None, Responder::Peer, 1);
        prop_assert!(!ours.handle_retry(&bytes));
        prop_assert!(ours.read_reply(&bytes).is_err());
        let (_, replied) = reply_to(ours.datagram(), 2);
        if let Replied::AwaitFinish(mut pending) = replied {
            prop_assert!(pending.read_finish(&bytes).is_err());
        }
        let mut pair = Pair::new(Responder::Peer, Suite::Aes256Gcm);
        prop_assert!(pair.open(0, &bytes).is_err());
        prop_assert!(pair.open(1, &bytes).is_err());
    }

    #[test]
    fn an_init_of_any_shape_is_read_or_refused(
        pattern in 0_u8..3,
        role in 0_u8..3,
        noise in prop::collection::vec(any::<u8>(), 0..200),
        len_off in -2_i16..3,
    ) {
        let len = (noise.len() as i16 + len_off).max(0).to_be_bytes();
        let head = [4, VERSION, pattern, role, 3, 0, len[0], len[1], 1, 2, 3, 4];
        let mut init = [&head[..], &[0; 32], &noise].concat();
        if role == 0 {
            init.resize(HANDSHAKE_INIT_LEN, 0);
        }
        if init::Init::parse(&init).is_ok() {
            restamp(&mut init, &key(2));
        }
        for responder in [Responder::Server, Responder::Peer] {
            if let Ok(accepted) = accept(&init, responder) {
                prop_assert_eq!((pattern, accepted.remote()), (1, None));
            }
        }
    }
}
