//! What a person reads once everything listens: where it is, and what to do next.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use bitrix24::AppName;
use processor::surroundings::Hints;

use crate::output::print;
use crate::{query, send};

/// More apps are only counted.
const APPS_MAX: usize = 10;

pub struct Welcome {
    pub webhooks: SocketAddr,
    pub queries: SocketAddr,
    pub admin: SocketAddr,
    /// Whether each has a path key. Empty if any name is accepted.
    pub apps: Vec<(AppName, bool)>,
    pub is_tls: bool,
    pub has_tokens: bool,
    pub data_dir: PathBuf,
}

impl Welcome {
    pub fn print(&self) -> anyhow::Result<()> {
        print(&self.text())
    }

    /// For the page, while nothing has come in.
    pub fn hints(&self) -> Hints {
        let urls = self.urls().into_iter().map(|url| url.split("  ").next().unwrap_or_default().to_owned());
        Hints { urls: urls.collect(), command: self.next() }
    }

    fn text(&self) -> String {
        let (queries, admin) = (self.queries, self.admin);
        let mut text = format!("Hookledger is running. Its data lies in {}.\n\n", self.data_dir.display());
        let row = |name: &str, shown: String| format!("  {name:<11}{shown}\n");
        for (index, shown) in self.urls().into_iter().enumerate() {
            text.push_str(&row(if index == 0 { "webhooks" } else { "" }, shown));
        }
        text.push_str(&row("page", format!("http://{queries}/")));
        text.push_str(&row("queries", format!("http://{queries}/v1/installations")));
        text.push_str(&row("metrics", format!("http://{admin}/metrics")));
        if let Some(command) = self.next() {
            let _ = write!(text, "\nNext, elsewhere:  {command}\n");
        }
        text
    }

    fn urls(&self) -> Vec<String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        let url = |app: &str| format!("{scheme}://{}/v1/events/{app}", self.webhooks);
        if self.apps.is_empty() {
            return vec![format!("{}      (any name on loopback)", url(send::APP))];
        }
        let shown = self.apps.iter().take(APPS_MAX);
        let mut urls: Vec<String> =
            shown.map(|(app, has_key)| url(app.as_str()) + if *has_key { "/PATH-KEY" } else { "" }).collect();
        if let Some(more) = self.apps.len().checked_sub(APPS_MAX).filter(|more| *more > 0) {
            urls.push(format!("and {more} more apps"));
        }
        urls
    }

    /// None if the command cannot reach the port: it speaks no TLS.
    fn next(&self) -> Option<String> {
        if self.is_tls {
            return None;
        }
        let mut command = "hookledger send life".to_owned();
        for (flag, address, default) in [("--to", self.webhooks, send::URL), ("--query", self.queries, query::URL)] {
            let url = format!("http://{}", reachable(address));
            if url != default {
                let _ = write!(command, " {flag} {url}");
            }
        }
        if let Some((app, has_key)) = self.apps.iter().find(|(_, has_key)| !has_key).or(self.apps.first()) {
            let _ = write!(command, " --app {app}{}", if *has_key { " --path-key-file FILE" } else { "" });
        }
        if self.has_tokens {
            command.push_str(" --query-token-file FILE");
        }
        Some(command)
    }
}

/// Of a port on all addresses, the one on this machine.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(webhooks: &str, apps: &[(&str, bool)]) -> Welcome {
        let address = |text: &str| text.parse().expect("an address");
        Welcome {
            webhooks: address(webhooks),
            queries: address("127.0.0.1:8081"),
            admin: address("127.0.0.1:9080"),
            apps: apps.iter().map(|(app, has_key)| (AppName::parse(app).expect("a name"), *has_key)).collect(),
            is_tls: false,
            has_tokens: false,
            data_dir: "./data".into(),
        }
    }

    #[test]
    fn with_defaults_the_hint_is_short() {
        let text = welcome("127.0.0.1:8080", &[]).text();
        assert!(text.contains("  webhooks   http://127.0.0.1:8080/v1/events/my-app      (any name"), "{text}");
        assert!(text.ends_with("\nNext, elsewhere:  hookledger send life\n"), "{text}");
    }

    #[test]
    fn apps_are_named_and_the_hint_has_the_real_ports() {
        let apps = [("crm-sync", true), ("telephony", false)];
        let text = Welcome { has_tokens: true, ..welcome("0.0.0.0:80", &apps) }.text();
        for line in [
            "  webhooks   http://0.0.0.0:80/v1/events/crm-sync/PATH-KEY\n",
            "  http://0.0.0.0:80/v1/events/telephony\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let hint = "send life --to http://127.0.0.1:80 --app telephony --query-token-file FILE\n";
        assert!(text.ends_with(hint), "{text}");
        let text = welcome("127.0.0.1:80", &apps[..1]).text();
        assert!(text.ends_with("--app crm-sync --path-key-file FILE\n"), "{text}");
        let text = Welcome { is_tls: true, ..welcome("127.0.0.1:80", &apps) }.text();
        assert!(text.contains("https://127.0.0.1:80/v1/events/telephony\n") && !text.contains("Next"), "{text}");
    }

    #[test]
    fn many_apps_are_counted() {
        let names: Vec<String> = (0..12).map(|number| format!("app-{number}")).collect();
        let apps: Vec<_> = names.iter().map(|name| (name.as_str(), false)).collect();
        let text = welcome("127.0.0.1:80", &apps).text();
        assert!(text.contains("app-9\n") && !text.contains("app-10") && text.contains("and 2 more apps"), "{text}");
    }
}
