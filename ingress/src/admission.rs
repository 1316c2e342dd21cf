//! The sender of a webhook, and whether it is taken: the app of its path, the client's address, source lists, the budget for junk.

pub mod apps;
pub mod budget;
pub mod proxies;
pub mod source_check;
pub mod source_list;
pub mod unknown_apps;
