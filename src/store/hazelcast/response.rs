//! Decoding of responses and events. Pure.

use uuid::Uuid;

use super::frame::{Fixed, Frames, Malformed, Message};
use super::request::{AUTHENTICATE, CLUSTER_VIEW, ENTRY_LISTENER};
use crate::store::engine::StoreError;

/// The type of an error.
const ERROR: u32 = 0;
/// Errors of which the protocol's list says that the request may be sent again: the member that was asked is going, or the
/// partition is. Every request here may: each write is a merge.
const REDO: [i32; 9] = [8, 19, 33, 39, 46, 47, 52, 53, 62];
/// Limit of members and partitions in one response: more than any cluster has.
const MAX_COUNT: usize = 65_536;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may be retried, perhaps at another member.
    Redo(StoreError),
    /// A retry does not help.
    Final(StoreError),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Final(StoreError::Unreadable(format!("Hazelcast answered {malformed}")))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Redo(error) | Failure::Final(error) => error,
        }
    }
}

/// The parameters of a response to a request of this type.
pub(super) fn answer(message: &Message, request: u32) -> Result<(Fixed<'_>, Frames<'_>), Failure> {
    let (fixed, mut frames) = message.open()?;
    if message.kind() == request.wrapping_add(1) && !message.is_event() {
        return Ok((fixed, frames));
    }
    if message.kind() == ERROR {
        Err(error(&mut frames)?)
    } else {
        Err(Malformed("something else than what was asked").into())
    }
}

/// The first of its causes. The message may contain keys and values, so only the class is reported.
fn error(frames: &mut Frames<'_>) -> Result<Failure, Malformed> {
    frames.begin()?;
    frames.begin()?;
    let code = Fixed(frames.next()?.content).int()?;
    let class = frames.text()?;
    let words = format!("Hazelcast says {} ({code})", class.rsplit('.').next().unwrap_or_default());
    Ok(if REDO.contains(&code) {
        Failure::Redo(StoreError::Unreachable(words))
    } else {
        Failure::Final(StoreError::Refused(words))
    })
}

/// The member that accepted the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) member: Uuid,
    /// "5.7.0".
    pub(super) version: String,
    pub(super) partitions: i32,
}

/// The member's identity, or the reason for its refusal.
pub(super) fn identity(message: &Message) -> Result<Identity, StoreError> {
    let (mut fixed, mut frames) = answer(message, AUTHENTICATE)?;
    let read = |malformed: Malformed| StoreError::from(Failure::from(malformed));
    match fixed.byte().map_err(read)? {
        0 => {}
        1 => {
            return Err(StoreError::Refused(
                "it does not take this cluster name, or this user and password".to_owned(),
            ));
        }
        2 => return Err(StoreError::Refused("it wants another form of serialization".to_owned())),
        _ => return Err(StoreError::Refused("it lets no clients into this cluster".to_owned())),
    }
    let mut rest = || {
        let member = fixed.uuid()?.ok_or(Malformed("nothing instead of a member"))?;
        let _serialization = fixed.byte()?;
        let partitions = fixed.int()?;
        frames.skip()?;
        let version = frames.text()?.to_owned();
        if !usize::try_from(partitions).is_ok_and(|count| (1..=MAX_COUNT).contains(&count)) {
            return Err(Malformed("an impossible number of partitions"));
        }
        Ok(Identity { member, version, partitions })
    };
    rest().map_err(read)
}

/// The value of a key.
pub(super) fn nullable(message: &Message, request: u32) -> Result<Option<&[u8]>, Failure> {
    let (_, mut frames) = answer(message, request)?;
    Ok(frames.nullable()?)
}

pub(super) fn boolean(message: &Message, request: u32) -> Result<bool, Failure> {
    let (mut fixed, _) = answer(message, request)?;
    Ok(fixed.boolean()?)
}

/// A key and what is kept under it.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// All of them that are there.
pub(super) fn entries(message: &Message, request: u32) -> Result<Vec<Entry<'_>>, Failure> {
    let (_, mut frames) = answer(message, request)?;
    Ok(read_entries(&mut frames)?)
}

fn read_entries<'a>(frames: &mut Frames<'a>) -> Result<Vec<Entry<'a>>, Malformed> {
    let mut entries = Vec::new();
    frames.begin()?;
    while !frames.ends()? {
        let missing = Malformed("an entry without key or value");
        entries.push((frames.nullable()?.ok_or(missing)?, frames.nullable()?.ok_or(missing)?));
    }
    Ok(entries)
}

/// The lifetime of an entry, by the clock of its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// In milliseconds of the Unix epoch.
    pub(super) ends: i64,
    /// As it was last set, in milliseconds; an entry without end has the highest number.
    pub(super) ttl: i64,
}

/// `None` = there is no such entry.
pub(super) fn life(message: &Message, request: u32) -> Result<Option<Life>, Failure> {
    let (_, mut frames) = answer(message, request)?;
    if !frames.nullable_begin()? {
        return Ok(None);
    }
    let mut fixed = Fixed(frames.next()?.content);
    let _cost_and_creation = (fixed.long()?, fixed.long()?);
    let ends = fixed.long()?;
    // Hits, last access, last stored, last update, version.
    for _ in 0..5 {
        fixed.long()?;
    }
    Ok(Some(Life { ends, ttl: fixed.long()? }))
}

/// Some entries of a partition, and the pointers to the next.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) pointers: Vec<(i32, i32)>,
}

pub(super) fn fetched(message: &Message, request: u32) -> Result<Fetched<'_>, Failure> {
    let (_, mut frames) = answer(message, request)?;
    let mut fixed = Fixed(frames.next()?.content);
    let mut pointers = Vec::new();
    while !fixed.is_empty() {
        pointers.push((fixed.int()?, fixed.int()?));
    }
    Ok(Fetched { pointers, entries: read_entries(&mut frames)? })
}

/// The configuration of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapConfig {
    /// Copies on other members.
    pub(super) backups: i32,
    /// 0 = entries without a life of their own never end.
    pub(super) ttl_seconds: i32,
}

pub(super) fn map_config(message: &Message, request: u32) -> Result<MapConfig, Failure> {
    let (mut fixed, _) = answer(message, request)?;
    let _format = fixed.int()?;
    let backups = fixed.int()?.saturating_add(fixed.int()?);
    Ok(MapConfig { backups, ttl_seconds: fixed.int()? })
}

/// A member, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemberInfo {
    pub(super) uuid: Uuid,
    /// `host:port`.
    pub(super) address: String,
}

/// Part of the view of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    Members(i32, Vec<MemberInfo>),
    /// The owner of each partition that has one.
    Partitions(i32, Vec<(Uuid, Vec<i32>)>),
    /// Something of later versions.
    Other,
}

/// An event of the cluster view.
pub(super) fn view(message: &Message) -> Result<View, Malformed> {
    let (mut fixed, mut frames) = message.open()?;
    match message.kind().wrapping_sub(CLUSTER_VIEW) {
        2 => Ok(View::Members(fixed.int()?, members(&mut frames)?)),
        3 => Ok(View::Partitions(fixed.int()?, partitions(&mut frames)?)),
        _ => Ok(View::Other),
    }
}

fn members(frames: &mut Frames<'_>) -> Result<Vec<MemberInfo>, Malformed> {
    let mut members = Vec::new();
    frames.begin()?;
    while !frames.ends()? {
        // Later versions say more of a member than is read here.
        let mut inside = *frames;
        frames.skip()?;
        inside.begin()?;
        let uuid = Fixed(inside.next()?.content).uuid()?.ok_or(Malformed("a member without its id"))?;
        inside.begin()?;
        let port = Fixed(inside.next()?.content).int()?;
        let host = inside.text()?;
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        members.push(MemberInfo { uuid, address });
        if members.len() > MAX_COUNT {
            return Err(Malformed("more members than there can be"));
        }
    }
    Ok(members)
}

/// First the lists of partitions, then the owners in the same order.
fn partitions(frames: &mut Frames<'_>) -> Result<Vec<(Uuid, Vec<i32>)>, Malformed> {
    let mut lists = Vec::new();
    frames.begin()?;
    while !frames.ends()? {
        let mut fixed = Fixed(frames.next()?.content);
        let mut list = Vec::new();
        while !fixed.is_empty() {
            list.push(fixed.int()?);
        }
        lists.push(list);
    }
    let mut owners = Fixed(frames.next()?.content);
    let with_owner =
        lists.into_iter().map(|list| Ok((owners.uuid()?.ok_or(Malformed("an owner without its id"))?, list)));
    with_owner.collect()
}

/// A key with its new value, and the kind of event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EntryEvent<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) kind: i32,
}

/// An event of an entry.
pub(super) fn entry_event(message: &Message) -> Result<Option<EntryEvent<'_>>, Malformed> {
    if message.kind() != ENTRY_LISTENER + 2 {
        return Ok(None);
    }
    let (mut fixed, mut frames) = message.open()?;
    let kind = fixed.int()?;
    let (key, value) = (frames.nullable()?, frames.nullable()?);
    let _before = frames.nullable()?;
    // After a split of the cluster, what the other side had.
    let merging = frames.nullable()?;
    Ok(key.zip(value.or(merging)).map(|(key, value)| EntryEvent { key, value, kind }))
}
