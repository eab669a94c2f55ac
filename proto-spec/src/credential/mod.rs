//! Credentials: the client's signed head, how a secret is split and sealed, who may hold its shares.

pub mod dealing;
pub mod head;
pub mod placement;
pub mod receipt;
pub mod seal;
pub mod shard_map;
pub mod split;
