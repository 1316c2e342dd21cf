//! Who is believed about somebody else's address: the proxies that the settings name, and nobody else.

use std::net::IpAddr;

use common::settings::{Settings, SettingsError};

use crate::networks::Networks;

/// The proxies in front of us.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Networks);

impl Proxies {
    /// Reads `trusted-proxies`.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let given = settings.all("trusted-proxies");
        let texts = given.iter().flat_map(|texts| texts.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let wrong = |text: &str| {
            let what = "an address, or a network such as `10.0.0.0/8`";
            SettingsError(format!("trusted-proxies has `{text}`, but it takes {what}, separated by commas"))
        };
        Networks::parse(texts).map(Self).map_err(wrong)
    }

    /// Whether this peer is one of them.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.contains(peer)
    }
}
