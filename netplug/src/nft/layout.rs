//! The table: its sets, chains and rules, which are the same for every instance and never change while containers come
//! and go. Only elements of sets do, so attaching costs the same with one container and with a thousand.
//!
//! ```text
//! table inet dhow
//!   set bridges  { ifname }                 every bridge of ours
//!   set outbound { ifname }                 those whose containers may leave, as the host
//!   set internal { ifname }                 those whose containers may not leave
//!   set within   { ifname . ifname }        each bridge with itself
//!   map publish4    { protocol . port : address . port }             published on every address
//!   map publish4_on { address . protocol . port : address . port }   published on one
//!   chain guard        prerouting raw: nobody on a bridge speaks to, or as, the host's loopback
//!   chain prerouting   what comes in for an address of the host may be for a container
//!   chain output       what the host itself sends to an address of its own, too
//!   chain publish      the maps
//!   chain postrouting  masquerading
//!   chain forward      who may speak to whom
//! ```
//!
//! Priorities are one before the usual ones, so the rules of others at the usual place still see every packet, and see it
//! translated. An accept here ends this table only: whatever another table drops stays dropped.

use super::expression::{
    Address, Base, Connection, Expression, FAMILY_IPV4, KEY, Meta, SECOND, Verdict, WORD_1, WORD_2, link_name,
};

/// A set or map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    /// Empty: a set.
    pub(crate) data: &'static [Field],
}

/// A field of a key, with nft's number for its type (which only listings need) and its length in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field {
    LinkName,
    Protocol,
    Port,
    Ipv4,
}

/// A chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// None: entered by a jump only.
    pub(crate) hook: Option<Hook>,
}

/// Where the kernel enters a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A rule and its chain.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) chain: &'static str,
    pub(crate) expressions: Vec<Expression>,
}

pub(crate) const BRIDGES: &str = "bridges";
pub(crate) const OUTBOUND: &str = "outbound";
pub(crate) const INTERNAL: &str = "internal";
pub(crate) const WITHIN: &str = "within";
pub(crate) const PUBLISH: &str = "publish4";
pub(crate) const PUBLISH_ON: &str = "publish4_on";

/// Every set.
pub(crate) const SETS: [Set; 6] = [
    Set { name: BRIDGES, key: &[Field::LinkName], data: &[] },
    Set { name: OUTBOUND, key: &[Field::LinkName], data: &[] },
    Set { name: INTERNAL, key: &[Field::LinkName], data: &[] },
    Set { name: WITHIN, key: &[Field::LinkName, Field::LinkName], data: &[] },
    Set { name: PUBLISH, key: &[Field::Protocol, Field::Port], data: &[Field::Ipv4, Field::Port] },
    Set { name: PUBLISH_ON, key: &[Field::Ipv4, Field::Protocol, Field::Port], data: &[Field::Ipv4, Field::Port] },
];

/// Every chain; one that is jumped to stands before those that jump.
pub(crate) const CHAINS: [Chain; 6] = [
    Chain { name: "publish", hook: None },
    Chain { name: "guard", hook: Some(Hook { kind: "filter", number: PREROUTING, priority: RAW }) },
    Chain { name: "prerouting", hook: Some(Hook { kind: "nat", number: PREROUTING, priority: DESTINATION_NAT - 1 }) },
    Chain { name: "output", hook: Some(Hook { kind: "nat", number: OUTPUT, priority: DESTINATION_NAT - 1 }) },
    Chain { name: "postrouting", hook: Some(Hook { kind: "nat", number: POSTROUTING, priority: SOURCE_NAT - 1 }) },
    Chain { name: "forward", hook: Some(Hook { kind: "filter", number: FORWARD, priority: FILTER - 1 }) },
];

impl Field {
    /// nft's number for the type.
    pub(crate) fn kind(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::LinkName => 41,
        }
    }

    /// Its length, padded as in registers.
    pub(crate) fn length(self) -> u32 {
        match self {
            Self::LinkName => 16,
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
        }
    }
}

/// Every rule, in order within its chain.
pub(crate) fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut rule = |chain, expressions: &[&[Expression]]| rules.push(Rule { chain, expressions: expressions.concat() });

    // With route_localnet on, which publishing on 127.0.0.1 needs, the kernel no longer refuses these as martians
    // (CVE-2020-8558).
    rule("guard", &[&from(BRIDGES), &loopback(DESTINATION), &[Expression::Verdict(Verdict::Drop)]]);
    rule("guard", &[&from(BRIDGES), &loopback(SOURCE), &[Expression::Verdict(Verdict::Drop)]]);

    // A neighbour on the network could otherwise send to 127.0.0.1 and reach a port published there only.
    rule("prerouting", &[&not_from_loopback(), &loopback(DESTINATION), &[Expression::Verdict(Verdict::Return)]]);
    // Only what is for this host: traffic in transit to the same port of others is not ours (CVE-2025-67499).
    rule("prerouting", &[&for_this_host(), &[Expression::Verdict(Verdict::Jump("publish"))]]);
    rule("output", &[&for_this_host(), &[Expression::Verdict(Verdict::Jump("publish"))]]);

    rule("publish", &[&translate_on_one_address()]);
    rule("publish", &[&translate_on_every_address()]);

    // A container that reaches itself or a neighbour by a published port: the answer has to come back through the host.
    rule("postrouting", &[&translated(), &pair_within(), &[Expression::Masquerade]]);
    // The same where br_netfilter sends it back within the bridge: then it has no incoming interface here, as only
    // packets of the host itself have none otherwise.
    rule(
        "postrouting",
        &[&translated(), &from_nowhere(), &to(BRIDGES), &not_from_this_host(), &[Expression::Masquerade]],
    );
    rule("postrouting", &[&ipv4(), &from(OUTBOUND), &not_to(BRIDGES), &[Expression::Masquerade]]);
    // The host reaches a container by 127.0.0.1: the container could not answer to that.
    rule("postrouting", &[&loopback(SOURCE), &to(BRIDGES), &[Expression::Masquerade]]);

    rule("forward", &[&known_connection(), &[Expression::Verdict(Verdict::Accept)]]);
    rule("forward", &[&pair_within(), &[Expression::Verdict(Verdict::Accept)]]);
    rule("forward", &[&from(INTERNAL), &[Expression::Verdict(Verdict::Drop)]]);
    rule("forward", &[&translated(), &to(BRIDGES), &[Expression::Verdict(Verdict::Accept)]]);
    // Neither another network of ours nor a neighbour who routes to us reaches a port that was not published.
    rule("forward", &[&to(BRIDGES), &[Expression::Verdict(Verdict::Drop)]]);
    rules
}

fn from(set: &'static str) -> Vec<Expression> {
    vec![Expression::Meta(Meta::InName, KEY), Expression::In(set, KEY)]
}

fn to(set: &'static str) -> Vec<Expression> {
    vec![Expression::Meta(Meta::OutName, KEY), Expression::In(set, KEY)]
}

fn not_to(set: &'static str) -> Vec<Expression> {
    vec![Expression::Meta(Meta::OutName, KEY), Expression::NotIn(set, KEY)]
}

fn pair_within() -> Vec<Expression> {
    vec![Expression::Meta(Meta::InName, KEY), Expression::Meta(Meta::OutName, SECOND), Expression::In(WITHIN, KEY)]
}

fn not_from_loopback() -> Vec<Expression> {
    vec![Expression::Meta(Meta::InName, KEY), Expression::NotEqual(KEY, link_name("lo"))]
}

fn from_nowhere() -> Vec<Expression> {
    vec![Expression::Meta(Meta::InName, KEY), Expression::Equal(KEY, link_name(""))]
}

fn ipv4() -> Vec<Expression> {
    #[expect(clippy::cast_possible_truncation, reason = "the family is loaded as one byte")]
    let family = FAMILY_IPV4 as u8;
    vec![Expression::Meta(Meta::Family, KEY), Expression::Equal(KEY, vec![family])]
}

/// An address of 127.0.0.0/8 at an offset of the IPv4 header.
fn loopback(offset: u32) -> Vec<Expression> {
    let mut expressions = ipv4();
    expressions.push(Expression::Payload { base: Base::Network, offset, length: 1, to: KEY });
    expressions.push(Expression::Equal(KEY, vec![127]));
    expressions
}

fn for_this_host() -> Vec<Expression> {
    vec![Expression::AddressType(Address::Destination, KEY), Expression::Equal(KEY, ROUTE_LOCAL.to_ne_bytes().to_vec())]
}

fn not_from_this_host() -> Vec<Expression> {
    vec![Expression::AddressType(Address::Source, KEY), Expression::NotEqual(KEY, ROUTE_LOCAL.to_ne_bytes().to_vec())]
}

fn translated() -> Vec<Expression> {
    connection(Connection::Status, CONNECTION_DESTINATION_NAT)
}

fn known_connection() -> Vec<Expression> {
    connection(Connection::State, CONNECTION_ESTABLISHED | CONNECTION_RELATED)
}

fn connection(what: Connection, bits: u32) -> Vec<Expression> {
    vec![
        Expression::Connection(what, KEY),
        Expression::Mask(KEY, bits.to_ne_bytes()),
        Expression::NotEqual(KEY, vec![0; 4]),
    ]
}

fn translate_on_one_address() -> Vec<Expression> {
    let mut expressions = ipv4();
    expressions.extend([
        Expression::Payload { base: Base::Network, offset: DESTINATION, length: 4, to: KEY },
        Expression::Meta(Meta::Protocol, WORD_1),
        Expression::Payload { base: Base::Transport, offset: DESTINATION_PORT, length: 2, to: WORD_2 },
        Expression::Map(PUBLISH_ON, KEY),
        Expression::DestinationNat { address: KEY, port: WORD_1 },
    ]);
    expressions
}

fn translate_on_every_address() -> Vec<Expression> {
    vec![
        Expression::Meta(Meta::Protocol, KEY),
        Expression::Payload { base: Base::Transport, offset: DESTINATION_PORT, length: 2, to: WORD_1 },
        Expression::Map(PUBLISH, KEY),
        Expression::DestinationNat { address: KEY, port: WORD_1 },
    ]
}

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;
/// Offsets in the IPv4 header.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// In the headers of tcp, udp and sctp alike.
const DESTINATION_PORT: u32 = 2;
const ROUTE_LOCAL: u32 = 2;
const CONNECTION_ESTABLISHED: u32 = 1 << 1;
const CONNECTION_RELATED: u32 = 1 << 2;
const CONNECTION_DESTINATION_NAT: u32 = 1 << 5;
