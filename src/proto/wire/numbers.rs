//! What parameters, tiers and kinds of streams are called on the wire. Types of frames: `frame`.

pub(super) const PARAM_MAX_DATA: u64 = 0x00;
pub(super) const PARAM_MAX_STREAM_DATA: u64 = 0x01;
pub(super) const PARAM_MAX_STREAMS: u64 = 0x02;
pub(super) const PARAM_GRACE: u64 = 0x03;
pub(super) const PARAM_EARLY_MAX_STREAM_DATA: u64 = 0x04;
pub(super) const PARAM_OPEN_WANTS: u64 = 0x05;
pub(super) const PARAM_LISTENERS_MAX: u64 = 0x06;
pub(super) const PARAM_FLOWS_MAX: u64 = 0x07;

pub(super) const TIER_PRIMARY: u64 = 0;
pub(super) const TIER_BACKUP: u64 = 1;
pub(super) const TIER_METERED: u64 = 2;
pub(super) const TIER_EXPRESS: u64 = 3;

pub(super) const KIND_DEFAULT: u64 = 0;
pub(super) const KIND_NAMED: u64 = 1;
pub(super) const KIND_RAW: u64 = 2;
pub(super) const KIND_WANTING: u64 = 3;
pub(super) const KIND_LISTENING: u64 = 4;
pub(super) const KIND_VISITOR: u64 = 5;
pub(super) const KIND_FLOW: u64 = 6;
