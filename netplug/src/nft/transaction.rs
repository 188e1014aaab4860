//! A batch of nftables changes, which the kernel makes all or none of.
//!
//! ```text
//! one datagram:  BATCH_BEGIN [generation] · message · message · … · BATCH_END
//! ```
//!
//! With a generation the kernel refuses the batch (`ERESTART`) when anybody has changed any ruleset since that generation;
//! so a change that rests on something read before is made on exactly that.

use nix::libc;

use super::layout::{Chain, Field, Rule, Set};
use crate::error::{Error, Result};
use crate::netlink::wire::{Header, Writer};
use crate::netlink::{Socket, libc_u16, refusal};

/// An element of a set (no data) or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

/// A batch that is being written.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    table: &'a str,
    messages: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    kind: u16,
    flags: u16,
    payload: Writer,
    what: String,
}

impl<'a> Transaction<'a> {
    /// An empty batch for one table of the family `inet`.
    pub(crate) fn new(table: &'a str) -> Self {
        Self { table, messages: Vec::new() }
    }

    /// Adds the table, if it is not there, with a mark of ours.
    pub(crate) fn add_table(&mut self, mark: &[u8]) {
        let mut payload = self.start(TABLE_NAME);
        payload.bytes(TABLE_USER_DATA, mark);
        self.push(NEW_TABLE, libc::NLM_F_CREATE, payload, "add table");
    }

    /// Deletes the table with all that is in it.
    pub(crate) fn delete_table(&mut self) {
        let payload = self.start(TABLE_NAME);
        self.push(DELETE_TABLE, 0, payload, "delete table");
    }

    /// Adds a set; `id` only has to differ from the ids of other sets of the batch.
    pub(crate) fn add_set(&mut self, set: &Set, id: u32) {
        let mut payload = self.start(1);
        payload.string(2, set.name);
        if !set.data.is_empty() {
            payload.be32(3, SET_IS_MAP);
        }
        payload.be32(4, type_of(set.key)).be32(5, length_of(set.key));
        if !set.data.is_empty() {
            payload.be32(6, type_of(set.data)).be32(7, length_of(set.data));
        }
        payload.be32(10, id);
        if let [Field::LinkName] = set.key {
            // Only listings need it: nft takes keys for numbers of the network otherwise.
            payload.bytes(13, &SET_KEYS_ARE_HOST_ORDER);
        }
        self.push(NEW_SET, libc::NLM_F_CREATE, payload, &format!("add set {}", set.name));
    }

    /// Adds a chain.
    pub(crate) fn add_chain(&mut self, chain: &Chain) {
        let mut payload = self.start(1);
        payload.string(3, chain.name);
        if let Some(hook) = chain.hook {
            payload.nest(4, |nest| {
                nest.be32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
            });
            payload.be32(5, POLICY_ACCEPT).string(7, hook.kind);
        }
        self.push(NEW_CHAIN, libc::NLM_F_CREATE, payload, &format!("add chain {}", chain.name));
    }

    /// Appends a rule to its chain.
    pub(crate) fn add_rule(&mut self, rule: &Rule) {
        let mut payload = self.start(1);
        payload.string(2, rule.chain).nest(4, |list| {
            for expression in &rule.expressions {
                expression.write(list);
            }
        });
        let flags = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        self.push(NEW_RULE, flags, payload, &format!("add rule to chain {}", rule.chain));
    }

    /// Adds elements; one that is there with the same data is left.
    pub(crate) fn add_elements(&mut self, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, libc::NLM_F_CREATE, elements, "add elements to");
    }

    /// Deletes elements, all of which have to be there.
    pub(crate) fn delete_elements(&mut self, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, 0, elements, "delete elements of");
    }

    /// Sends the batch. `generation`: refuse it if any ruleset has changed since.
    pub(crate) fn commit(self, socket: &mut Socket, generation: Option<u32>) -> Result<()> {
        let Some(last) = self.messages.len().checked_sub(1) else { return Ok(()) };
        let mut datagram = Vec::with_capacity(4096);
        let begin = socket.next_sequence();
        // The batch's subsystem stands in the family header, in network byte order.
        let envelope = [0, 0, 0, SUBSYSTEM];
        let mut payload = Writer::new(&envelope);
        if let Some(generation) = generation {
            payload.be32(BATCH_GENERATION, generation);
        }
        let begin_header = Header { kind: BATCH_BEGIN, flags: libc_u16(libc::NLM_F_REQUEST), sequence: begin };
        begin_header.emit(&payload.finish("begin batch")?, &mut datagram);
        let mut names = Vec::with_capacity(self.messages.len());
        for (index, message) in self.messages.into_iter().enumerate() {
            let acknowledge = if index == last { libc::NLM_F_ACK } else { 0 };
            let header = Header {
                kind: u16::from(SUBSYSTEM) << 8 | message.kind,
                flags: message.flags | libc_u16(libc::NLM_F_REQUEST | acknowledge),
                sequence: socket.next_sequence(),
            };
            header.emit(&message.payload.finish(&message.what)?, &mut datagram);
            names.push(message.what);
        }
        let end = Header { kind: BATCH_END, flags: libc_u16(libc::NLM_F_REQUEST), sequence: socket.next_sequence() };
        end.emit(&envelope, &mut datagram);
        socket.reserve(datagram.len())?;
        socket.send(&datagram)?;
        wait(socket, begin, &names)
    }

    fn elements(&mut self, kind: u16, flags: i32, elements: &[Element], verb: &str) {
        for set in elements.chunk_by(|one, other| one.set == other.set) {
            // A nest has 16 bits of length; 400 of our longest elements take 40 KB.
            for chunk in set.chunks(400) {
                let mut payload = self.start(1);
                payload.string(2, chunk[0].set).nest(3, |list| {
                    for element in chunk {
                        list.nest(1, |nest| {
                            nest.nest(1, |key| {
                                key.bytes(1, &element.key);
                            });
                            if !element.data.is_empty() && kind == NEW_ELEMENTS {
                                nest.nest(2, |data| {
                                    data.bytes(1, &element.data);
                                });
                            }
                        });
                    }
                });
                self.push(kind, flags, payload, &format!("{verb} {}", chunk[0].set));
            }
        }
    }

    /// A payload that begins with the family and the table's name, which every message has as one of its attributes.
    fn start(&self, name_attribute: u16) -> Writer {
        let mut payload = Writer::new(&[FAMILY_INET, 0, 0, 0]);
        payload.string(name_attribute, self.table);
        payload
    }

    fn push(&mut self, kind: u16, flags: i32, payload: Writer, what: &str) {
        let what = format!("nftables: {what} in table {}", self.table);
        self.messages.push(Message { kind, flags: libc_u16(flags), payload, what });
    }
}

/// Waits for the batch's outcome: the first error, or the acknowledgement of the last message, which is sent after the
/// commit. Errors come in the order of their messages; those of the whole batch come for its begin.
fn wait(socket: &mut Socket, begin: u32, names: &[String]) -> Result<()> {
    let mut outcome = None;
    while outcome.is_none() {
        socket.receive(|header, payload| {
            // What an earlier batch left unread has other numbers.
            let position = header.sequence.wrapping_sub(begin) as usize;
            let of_batch = position <= names.len() + 1 && i32::from(header.kind) == libc::NLMSG_ERROR;
            if !of_batch || outcome.is_some() {
                return false;
            }
            let name = position.checked_sub(1).and_then(|index| names.get(index));
            let what = name.map_or("nftables: commit", String::as_str);
            outcome = refusal(header, payload, what).map(Err).or(Some(Ok(())));
            true
        })?;
    }
    outcome.unwrap_or(Ok(()))
}

/// Whether the kernel refused the batch because the ruleset's generation had moved on.
pub(crate) fn is_outdated(error: &Error) -> bool {
    error.code() == Some(ERESTART)
}

fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |kind, field| kind << 6 | field.kind())
}

fn length_of(fields: &[Field]) -> u32 {
    fields.iter().map(|field| field.length()).sum()
}

/// nftables' number among netfilter's subsystems.
pub(crate) const SUBSYSTEM: u8 = 10;
/// The family of our tables: IPv4 and IPv6 in one.
pub(crate) const FAMILY_INET: u8 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const BATCH_GENERATION: u16 = 1;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const TABLE_NAME: u16 = 1;
const TABLE_USER_DATA: u16 = 6;
const SET_IS_MAP: u32 = 8;
/// nft's own note on a set: type, length, value (1: the host's byte order).
const SET_KEYS_ARE_HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
const POLICY_ACCEPT: u32 = 1;
/// The kernel's own code, which libc does not have.
const ERESTART: i32 = 85;
