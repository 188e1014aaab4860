//! The firewall: one nftables table per instance, spoken to over netlink.
//!
//! Owns the table and nothing else in the ruleset. The truth is on disk (networks, attachments); the table is made from it
//! whole whenever it is missing, whoever removed it, and otherwise only its sets' elements change.

pub(crate) mod expression;
pub(crate) mod layout;
pub(crate) mod transaction;

use std::collections::BTreeSet;
use std::net::IpAddr;

use dhow_sys::netlink::Protocol;
use nix::libc;
use sha2::{Digest, Sha256};

use self::expression::{address, link_name, padded};
use self::layout::{BRIDGES, CHAINS, INTERNAL, OUTBOUND, PUBLISH, PUBLISH_ON, SETS, WITHIN, rules};
use self::transaction::{Element, FAMILY_INET, SUBSYSTEM, Transaction, is_outdated};
use crate::error::{Error, Result};
use crate::netlink::wire::{Writer, attribute, read_be32};
use crate::netlink::{Request, Socket, libc_u16};
use crate::port::Transport;

/// A bridge as the firewall knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) internal: bool,
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) transport: Transport,
    /// None: on every address.
    pub(crate) host: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) container: IpAddr,
    pub(crate) container_port: u16,
}

/// All that the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) published: Vec<Published>,
}

/// The table of an instance.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    /// Kept open: the kernel waits for a grace period when a netfilter socket is closed after something was deleted.
    socket: Option<Socket>,
    verified: Option<Verified>,
}

/// When the table was last known to be whole.
#[derive(Debug)]
struct Verified {
    /// The ruleset's generation then.
    generation: u32,
    /// The bridges that were in it.
    bridges: BTreeSet<String>,
}

impl Firewall {
    /// The table of this name, which need not exist.
    pub(crate) fn new(table: String) -> Self {
        Self { table, socket: None, verified: None }
    }

    /// Adds a bridge and published ports in one transaction. If the table is not whole it is made anew from `all`, which
    /// has to have them already.
    pub(crate) fn add(
        &mut self,
        bridge: &Bridge,
        published: &[Published],
        all: impl Fn() -> Result<State>,
    ) -> Result<()> {
        let elements: Vec<_> = published.iter().map(element).collect();
        for _ in 0..ATTEMPTS {
            let known = self.verified.take().filter(|known| known.bridges.contains(&bridge.name));
            let known = match known {
                // With nothing to change it only has to be seen whether anybody else has changed anything.
                Some(known) if !elements.is_empty() || self.generation()? == known.generation => Some(known),
                _ => self.verify(bridge)?,
            };
            let Some(mut known) = known else { return self.replace(&all()?) };
            if !elements.is_empty() {
                let mut transaction = Transaction::new(&self.table);
                transaction.add_elements(&elements);
                match transaction.commit(opened(&mut self.socket)?, Some(known.generation)) {
                    Ok(()) => known.generation = following(known.generation),
                    Err(error) if is_outdated(&error) => continue,
                    // An element that is there leads elsewhere.
                    Err(error) if error.code() == Some(libc::EEXIST) => return self.replace(&all()?),
                    Err(error) => return Err(error),
                }
            }
            self.verified = Some(known);
            return Ok(());
        }
        Err(Error::Contended(self.table.clone()))
    }

    /// Takes published ports away. If not all of them are there the table is made anew from `all`, which must not have
    /// them any more.
    pub(crate) fn withdraw(&mut self, published: &[Published], all: impl Fn() -> Result<State>) -> Result<()> {
        if published.is_empty() {
            return Ok(());
        }
        let elements: Vec<_> = published.iter().map(element).collect();
        let mut known = self.verified.take();
        loop {
            let mut transaction = Transaction::new(&self.table);
            transaction.delete_elements(&elements);
            match transaction.commit(opened(&mut self.socket)?, known.as_ref().map(|known| known.generation)) {
                Ok(()) => {
                    self.verified = known.map(|known| Verified { generation: following(known.generation), ..known });
                    return Ok(());
                }
                // Whatever others have changed, these elements are to go.
                Err(error) if is_outdated(&error) && known.is_some() => known = None,
                Err(error) if error.code() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        let state = all()?;
        if state.bridges.is_empty() { self.remove() } else { self.replace(&state) }
    }

    /// Makes the table hold exactly this, in one transaction.
    pub(crate) fn replace(&mut self, state: &State) -> Result<()> {
        self.verified = None;
        for _ in 0..ATTEMPTS {
            // What is written does not depend on what was there; but with the generation the next one is known as ours.
            let generation = self.generation()?;
            match whole(&self.table, state).commit(opened(&mut self.socket)?, Some(generation)) {
                Ok(()) => {
                    let bridges = state.bridges.iter().map(|bridge| bridge.name.clone()).collect();
                    self.verified = Some(Verified { generation: following(generation), bridges });
                    return Ok(());
                }
                Err(error) if is_outdated(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended(self.table.clone()))
    }

    /// Deletes the table; one that is not there is no error.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.verified = None;
        if self.mark_of_table()?.is_none() {
            return Ok(());
        }
        let mut transaction = Transaction::new(&self.table);
        transaction.add_table(&mark());
        transaction.delete_table();
        transaction.commit(opened(&mut self.socket)?, None)
    }

    /// Whether the ports and the bridge are in the table, for Check.
    pub(crate) fn has(&mut self, bridge: &Bridge, published: &[Published]) -> Result<bool> {
        let mut wanted = elements_of_bridge(bridge);
        wanted.extend(published.iter().map(element));
        if self.count_rules()? != rules().len() {
            return Ok(false);
        }
        for element in &wanted {
            if !self.has_element(element)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The socket, for what else is said to netfilter.
    pub(crate) fn socket(&mut self) -> Result<&mut Socket> {
        opened(&mut self.socket)
    }

    /// Looks whether the table is whole, with this bridge in it.
    fn verify(&mut self, bridge: &Bridge) -> Result<Option<Verified>> {
        let generation = self.generation()?;
        if self.mark_of_table()?.as_deref() != Some(mark().as_slice()) || self.count_rules()? != rules().len() {
            return Ok(None);
        }
        for element in elements_of_bridge(bridge) {
            if !self.has_element(&element)? {
                return Ok(None);
            }
        }
        Ok(Some(Verified { generation, bridges: BTreeSet::from([bridge.name.clone()]) }))
    }

    fn mark_of_table(&mut self) -> Result<Option<Vec<u8>>> {
        let mut payload = Writer::new(&[FAMILY_INET, 0, 0, 0]);
        payload.string(1, &self.table);
        let mut found = None;
        let seen = self.ask(GET_TABLE, 0, payload, "get table", |rest| {
            found = Some(attribute(rest, TABLE_USER_DATA).unwrap_or_default().to_vec());
        })?;
        Ok(found.filter(|_| seen))
    }

    fn count_rules(&mut self) -> Result<usize> {
        let mut payload = Writer::new(&[FAMILY_INET, 0, 0, 0]);
        payload.string(1, &self.table);
        let mut count = 0;
        let name = format!("{}\0", self.table);
        self.ask(GET_RULE, libc::NLM_F_DUMP, payload, "list rules of table", |rest| {
            if attribute(rest, 1) == Some(name.as_bytes()) {
                count += 1;
            }
        })?;
        Ok(count)
    }

    fn has_element(&mut self, element: &Element) -> Result<bool> {
        let mut payload = Writer::new(&[FAMILY_INET, 0, 0, 0]);
        payload.string(1, &self.table).string(2, element.set).nest(3, |list| {
            list.nest(1, |nest| {
                nest.nest(1, |key| {
                    key.bytes(1, &element.key);
                });
            });
        });
        let mut same = false;
        let found = self.ask(GET_ELEMENTS, 0, payload, "look up element in table", |rest| {
            // elements · element · data · value
            let data = attribute(rest, 3).and_then(|list| attribute(list, 1)).and_then(|one| attribute(one, 2));
            let value = data.and_then(|data| attribute(data, 1)).unwrap_or_default();
            same = value == element.data;
        })?;
        Ok(found && same)
    }

    /// The generation of the namespace's whole ruleset; each transaction of anybody makes a new one.
    fn generation(&mut self) -> Result<u32> {
        let what = "nftables: get the ruleset's generation";
        let request = Request {
            kind: u16::from(SUBSYSTEM) << 8 | GET_GENERATION,
            flags: 0,
            payload: Writer::new(&[0, 0, 0, 0]).finish(what)?,
            what: what.to_owned(),
            tolerate: None,
        };
        let mut generation = None;
        opened(&mut self.socket)?.query(&request, |_kind, payload| {
            let rest = payload.get(4..).unwrap_or_default();
            generation = attribute(rest, GENERATION_ID).and_then(|value| read_be32(value, 0));
        })?;
        generation.ok_or_else(|| Error::Malformed { request: what.to_owned() })
    }

    /// Asks about the table; false when it, or what was asked about, is not there.
    fn ask(&mut self, kind: u16, flags: i32, payload: Writer, what: &str, mut each: impl FnMut(&[u8])) -> Result<bool> {
        let what = format!("nftables: {what} {}", self.table);
        let payload = payload.finish(&what)?;
        let request =
            Request { kind: u16::from(SUBSYSTEM) << 8 | kind, flags: libc_u16(flags), payload, what, tolerate: None };
        match opened(&mut self.socket)?.query(&request, |_kind, payload| each(payload.get(4..).unwrap_or_default())) {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The transaction that makes the whole table.
fn whole<'a>(table: &'a str, state: &State) -> Transaction<'a> {
    let mut transaction = Transaction::new(table);
    // Adding first makes the deletion valid whether or not the table exists.
    transaction.add_table(&mark());
    transaction.delete_table();
    transaction.add_table(&mark());
    for (id, set) in (1..).zip(&SETS) {
        transaction.add_set(set, id);
    }
    for chain in &CHAINS {
        transaction.add_chain(chain);
    }
    for rule in rules() {
        transaction.add_rule(&rule);
    }
    let mut elements: Vec<_> = state.bridges.iter().flat_map(elements_of_bridge).collect();
    elements.extend(state.published.iter().map(element));
    // Elements of one set lie together in as few messages as possible.
    elements.sort_by_key(|element| element.set);
    transaction.add_elements(&elements);
    transaction
}

/// The socket, opened when it is first needed.
fn opened(socket: &mut Option<Socket>) -> Result<&mut Socket> {
    match socket {
        Some(socket) => Ok(socket),
        empty => Ok(empty.insert(Socket::open(Protocol::Netfilter)?)),
    }
}

/// The generation that one transaction leads to; the kernel leaves zero out.
fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// What a table is marked with: whose it is and a hash of its layout, so that a newer dhow makes it anew.
fn mark() -> Vec<u8> {
    let layout = format!("{SETS:?} {CHAINS:?} {:?}", rules());
    let digest = Sha256::digest(layout.as_bytes());
    let mut mark = b"dhow:".to_vec();
    mark.extend_from_slice(&digest[..8]);
    mark
}

fn elements_of_bridge(bridge: &Bridge) -> Vec<Element> {
    let name = link_name(&bridge.name);
    let with = |set| Element { set, key: name.clone(), data: Vec::new() };
    let within = Element { set: WITHIN, key: [name.as_slice(), &name].concat(), data: Vec::new() };
    vec![with(BRIDGES), with(if bridge.internal { INTERNAL } else { OUTBOUND }), within]
}

fn element(published: &Published) -> Element {
    let service = [padded(&[published.transport.number()]), padded(&published.host_port.to_be_bytes())].concat();
    let data = [address(published.container), padded(&published.container_port.to_be_bytes())].concat();
    match published.host {
        None => Element { set: PUBLISH, key: service, data },
        Some(host) => Element { set: PUBLISH_ON, key: [address(host), service].concat(), data },
    }
}

/// How often a change is tried again because others changed the ruleset meanwhile.
const ATTEMPTS: usize = 32;
const GET_TABLE: u16 = 1;
const GET_RULE: u16 = 7;
const GET_ELEMENTS: u16 = 13;
const GET_GENERATION: u16 = 16;
const GENERATION_ID: u16 = 1;
const TABLE_USER_DATA: u16 = 6;
