//! Plays portals of Bitrix24: their bodies, their lives, and many of them at once.

pub mod client;
pub mod load;
pub mod portal;
pub mod urlencode;
