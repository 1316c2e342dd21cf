//! Installations without facts, only with held events. Anyone can make them up, so their number is limited: the least
//! recently active are forgotten first.

use std::collections::{BTreeMap, BTreeSet};

use bitrix24::{AppName, Installation, MemberId};

use domain::InstallationState;

/// The limit of all apps together, in limits of one app: without `apps`, app names can be made up, too.
const APPS_FACTOR: usize = 5;

/// The untrusted installations of one partition, by the offset of their last event.
#[derive(Default)]
pub struct Untrusted {
    by_app: BTreeMap<AppName, BTreeSet<(u64, MemberId)>>,
    all: BTreeSet<(u64, Installation)>,
}

impl Untrusted {
    /// The offset of the last event, if the installation has no facts.
    pub fn heard(state: &InstallationState) -> Option<u64> {
        let last = |offsets: &domain::Principal| offsets.held.keys().next_back().copied();
        state.is_unclaimed().then(|| state.principals.values().filter_map(last).max()).flatten()
    }

    pub fn replace(&mut self, installation: &Installation, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        let Installation { app, member_id } = installation;
        if let Some(at) = before {
            self.all.remove(&(at, installation.clone()));
            if let Some(members) = self.by_app.get_mut(app) {
                members.remove(&(at, member_id.clone()));
                if members.is_empty() {
                    self.by_app.remove(app);
                }
            }
        }
        if let Some(at) = after {
            self.all.insert((at, installation.clone()));
            self.by_app.entry(app.clone()).or_default().insert((at, member_id.clone()));
        }
    }

    /// The one heard of last comes first.
    fn newest(&self) -> impl Iterator<Item = &Installation> {
        self.all.iter().rev().map(|(_, installation)| installation)
    }

    /// Installations above the limit for each app, and above that for all apps; up to `most`, the oldest first.
    pub fn surplus(&self, limit: usize, most: usize) -> Vec<Installation> {
        if self.all.len() <= limit {
            return Vec::new();
        }
        let beyond = self.by_app.iter().flat_map(|(app, members)| {
            let oldest = members.iter().take(members.len().saturating_sub(limit));
            oldest.map(|(_, member_id)| Installation { app: app.clone(), member_id: member_id.clone() })
        });
        let mut surplus: Vec<Installation> = beyond.take(most).collect();
        let all = limit.saturating_mul(APPS_FACTOR);
        let beyond_all = self.all.len().saturating_sub(all.saturating_add(surplus.len()));
        let known: BTreeSet<Installation> = surplus.iter().cloned().collect();
        let oldest = self.all.iter().map(|(_, installation)| installation).filter(|oldest| !known.contains(oldest));
        surplus.extend(oldest.take(beyond_all.min(most - surplus.len())).cloned());
        surplus
    }
}

/// The ones heard of last, of all partitions alike: up to `most`.
pub fn newest(partitions: &[Untrusted], most: usize, takes: impl Fn(&Installation) -> bool) -> Vec<Installation> {
    let mut rest: Vec<_> = partitions.iter().map(|untrusted| untrusted.newest().filter(|found| takes(found))).collect();
    let mut found = Vec::new();
    while found.len() < most {
        let before = found.len();
        found.extend(rest.iter_mut().filter_map(Iterator::next).cloned());
        if found.len() == before {
            break;
        }
    }
    found.truncate(most);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(app: &str, member: usize) -> Installation {
        Installation::parse(app, &format!("m{member}")).expect("valid")
    }

    #[test]
    fn the_ones_heard_of_longest_ago_give_way_for_each_app() {
        let mut untrusted = Untrusted::default();
        for at in 0..5 {
            untrusted.replace(&installation("crm", at), None, Some(at as u64));
            untrusted.replace(&installation("tasks", at), None, Some(at as u64));
        }
        assert_eq!(untrusted.surplus(5, 100), []);
        untrusted.replace(&installation("crm", 0), Some(0), Some(9));
        untrusted.replace(&installation("tasks", 4), Some(4), None);
        assert_eq!(untrusted.surplus(4, 100), [installation("crm", 1)]);
        assert_eq!(untrusted.surplus(3, 2), [installation("crm", 1), installation("crm", 2)]);
    }

    #[test]
    fn the_ones_heard_of_last_are_of_all_partitions() {
        let mut partitions = [Untrusted::default(), Untrusted::default()];
        for at in 0..4 {
            partitions[0].replace(&installation("crm", at), None, Some(at as u64));
        }
        partitions[1].replace(&installation("tasks", 0), None, Some(9));
        let found = newest(&partitions, 3, |_| true);
        assert_eq!(found, [installation("crm", 3), installation("tasks", 0), installation("crm", 2)]);
        assert_eq!(newest(&partitions, 9, |found| found.app.as_str() == "tasks"), [installation("tasks", 0)]);
    }

    #[test]
    fn made_up_apps_are_limited_together() {
        let mut untrusted = Untrusted::default();
        for at in 0..20 {
            untrusted.replace(&installation(&format!("app{at}"), 0), None, Some(at));
        }
        let expected: Vec<_> = (0..10).map(|at| installation(&format!("app{at}"), 0)).collect();
        assert_eq!(untrusted.surplus(2, 100), expected);
    }
}
