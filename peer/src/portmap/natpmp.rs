//! The NAT Port Mapping Protocol (RFC 6886), which older routers speak.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::exchange::Read;
use super::pcp::seconds;

const VERSION: u8 = 0;
const EXTERNAL_ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const RESPONSE: u8 = 0x80;

/// Asks for the router's external address.
pub(super) const ADDRESS_QUESTION: [u8; 2] = [VERSION, EXTERNAL_ADDRESS];

pub(super) fn read_address(answer: &[u8]) -> Read<Ipv4Addr> {
    match *answer {
        [VERSION, kind, 0, 0, _, _, _, _, a, b, c, d] if kind == RESPONSE | EXTERNAL_ADDRESS => {
            Read::Answer(Ipv4Addr::new(a, b, c, d))
        }
        _ => read_refusal(answer, EXTERNAL_ADDRESS),
    }
}

/// A question for a mapping, or, with a lifetime of zero, for its end.
pub(super) fn map_question(internal: u16, suggested: u16, lifetime: Duration) -> Vec<u8> {
    let mut bytes = vec![VERSION, MAP_UDP, 0, 0];
    bytes.extend(internal.to_be_bytes());
    bytes.extend(suggested.to_be_bytes());
    bytes.extend(seconds(lifetime).to_be_bytes());
    bytes
}

/// The external port of `internal`, and how long it lasts.
pub(super) fn read_map(answer: &[u8], internal: u16) -> Read<(u16, Duration)> {
    match *answer {
        [VERSION, kind, 0, 0, _, _, _, _, i, j, e, f, a, b, c, d]
            if kind == RESPONSE | MAP_UDP && u16::from_be_bytes([i, j]) == internal =>
        {
            let lifetime = Duration::from_secs(u32::from_be_bytes([a, b, c, d]).into());
            Read::Answer((u16::from_be_bytes([e, f]), lifetime))
        }
        _ => read_refusal(answer, MAP_UDP),
    }
}

fn read_refusal<T>(answer: &[u8], operation: u8) -> Read<T> {
    match *answer {
        [VERSION, kind, high, low, ..] if kind == RESPONSE | operation && (high, low) != (0, 0) => {
            Read::Refusal(u16::from_be_bytes([high, low]))
        }
        _ => Read::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_as_the_rfc_has_them() {
        let map = map_question(4000, 4000, Duration::from_secs(7200));
        assert_eq!(map, [0, 1, 0, 0, 0x0f, 0xa0, 0x0f, 0xa0, 0, 0, 0x1c, 0x20]);
    }

    #[test]
    fn answers_are_told_from_refusals_and_from_others() {
        let address = [0, 0x80, 0, 0, 0, 0, 0, 9, 192, 0, 2, 1];
        let expected = Ipv4Addr::new(192, 0, 2, 1);
        assert!(matches!(read_address(&address), Read::Answer(found) if found == expected));
        assert!(matches!(read_address(&[0, 0x80, 0, 3, 0, 0, 0, 9]), Read::Refusal(3)));
        assert!(matches!(read_address(&address[..11]), Read::Foreign));
        let map = [0, 0x81, 0, 0, 0, 0, 0, 9, 0x0f, 0xa0, 0x13, 0x88, 0, 0, 0, 120];
        let expected = (5000, Duration::from_secs(120));
        assert!(matches!(read_map(&map, 4000), Read::Answer(found) if found == expected));
        assert!(matches!(read_map(&map, 4001), Read::Foreign));
        assert!(matches!(read_map(&address, 4000), Read::Foreign));
        assert!(matches!(read_map(&[0, 0x81, 0, 2, 0, 0, 0, 9], 4000), Read::Refusal(2)));
        assert!(matches!(read_map(&[], 4000), Read::Foreign));
    }
}
