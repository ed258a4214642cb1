//! All pairs.

use super::class::Class;
use super::kind::Kind;
use super::pair::{Incident, Lines, Pair};
use crate::nat::{NatConfig, Unsolicited};
use crate::oracle::{Expectation, Side};

/// The kinds with which circumstances are varied: one for each way of being met.
const FEW: [Kind; 7] = [
    Kind::Public,
    Kind::FULL_CONE,
    Kind::RESTRICTED,
    Kind::PORT_RESTRICTED,
    Kind::LINUX,
    Kind::SYMMETRIC,
    Kind::counting(1),
];

/// Those that count, with every step.
const COUNTING: [Kind; 4] =
    [Kind::counting(1), Kind::counting(2), Kind::counting(5), Kind::counting(-1)];

impl Pair {
    /// Everything.
    pub fn all() -> Vec<Self> {
        let varied = [circumstances(), busy(), Self::specials(), incidents()].concat();
        Self::matrix().into_iter().chain(varied).collect()
    }

    /// Every unordered pair of kinds.
    pub fn matrix() -> Vec<Self> {
        unordered(&Kind::all()).map(|(a, b)| Self::of(a, b)).collect()
    }

    /// Neighbours, carriers, cascades and IPv6.
    pub fn specials() -> Vec<Self> {
        let (cone, symmetric) = (NatConfig::PORT_RESTRICTED, NatConfig::SYMMETRIC);
        let home = |number, carrier| Side::behind(number, cone).then(9, carrier);
        let six = |number| Side::behind(number, symmetric).with_ipv6();
        let hairpin = cone.with_hairpin();
        let hard_hairpin = symmetric.with_hairpin();
        let pairs = [
            ("same-lan", Side::behind(1, cone), Side::behind(1, cone)),
            ("same-lan-symmetric", Side::behind(1, symmetric), Side::behind(1, symmetric)),
            ("same-carrier-hairpin", home(1, hairpin), home(2, hairpin)),
            ("same-carrier", home(1, cone), home(2, cone)),
            ("same-symmetric-carrier-hairpin", home(1, hard_hairpin), home(2, hard_hairpin)),
            ("home:carrier", home(1, cone), Side::behind(9, cone)),
            ("cascade:cone", home(1, cone), Side::behind(2, cone)),
            ("cascade:cascade", home(1, cone), Side::behind(2, cone).then(8, cone)),
            ("cascade:symmetric", home(1, cone), Side::behind(2, symmetric)),
            ("symmetric-carrier:cone", home(1, symmetric), Side::behind(2, cone)),
            ("ipv6:ipv6", six(1), six(2)),
            ("ipv6:symmetric", six(1), Side::behind(2, symmetric)),
        ];
        let pairs = pairs.map(|(name, a, b)| Self::special(name, a, b));
        pairs.into_iter().map(|pair| among(Class::Special, pair)).collect()
    }
}

/// Simple pairs with other routers and lines.
fn circumstances() -> Vec<Pair> {
    let simple = |(a, b): &(Kind, Kind)| Pair::of(*a, *b).expected() == Expectation::Direct;
    let all = unordered(&FEW).filter(simple).flat_map(|(a, b)| {
        let keep = Pair::with_routers(a, b, Unsolicited::AcceptState);
        [
            Pair::with_routers(a, b, Unsolicited::Reject).in_class(Class::Routers),
            keep.clone().in_class(Class::Routers),
            Pair::of(a, b).over(Lines::Uneven).in_class(Class::Uneven),
            Pair::of(a, b).over(Lines::Jittery).in_class(Class::Jittery),
            Pair::of(a, b).over(Lines::Lossy).in_class(Class::Lossy),
            keep.over(Lines::Rough).in_class(Class::Rough),
        ]
    });
    all.collect()
}

/// Boxes that count, with others behind them.
fn busy() -> Vec<Pair> {
    let window = COUNTING
        .map(|kind| Pair::with_neighbours(Kind::PORT_RESTRICTED, kind).in_class(Class::WindowBusy));
    let aligned =
        unordered(&COUNTING).map(|(a, b)| Pair::with_neighbours(a, b).in_class(Class::AlignedBusy));
    window.into_iter().chain(aligned).collect()
}

/// Things that happen to a conversation.
fn incidents() -> Vec<Pair> {
    let pairs = [
        (Kind::Public, Kind::PORT_RESTRICTED),
        (Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED),
        (Kind::LINUX, Kind::LINUX),
        (Kind::RESTRICTED, Kind::SYMMETRIC),
    ];
    let all = pairs.into_iter().flat_map(|(a, b)| {
        [
            Pair::of(a, b).with_incident(Incident::Reboot).in_class(Class::Reboot),
            Pair::of(a, b).with_incident(Incident::Move).in_class(Class::Move),
        ]
    });
    all.collect()
}

/// Counts a pair with the class if it is simple, else where it belongs.
fn among(class: Class, pair: Pair) -> Pair {
    if pair.class == Class::Simple { pair.in_class(class) } else { pair }
}

fn unordered(kinds: &[Kind]) -> impl Iterator<Item = (Kind, Kind)> {
    let rows = kinds.iter().enumerate();
    rows.flat_map(|(row, a)| kinds[row..].iter().map(|b| (*a, *b)))
}
