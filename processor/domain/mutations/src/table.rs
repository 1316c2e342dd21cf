//! The bugs: what stands in the sources of `domain`, and what stands there with the bug.

pub struct Mutation {
    pub name: &'static str,
    /// File, code, and code with the bug where `BUG` is true.
    pub changes: &'static [(&'static str, &'static str, &'static str)],
}

pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "the last principal heard of holds the place, not the first",
        changes: &[(
            "trust.rs",
            "Some((known.first_heard()?, *principal))).min()?;",
            "Some((known.first_heard()?, *principal)));
             let first = if BUG { first.max()? } else { first.min()? };",
        )],
    },
    Mutation {
        name: "the place is not passed on after an uninstall",
        changes: &[(
            "trust.rs",
            ".claims.left_at() {\n        former",
            ".claims.left_at().filter(|_| !BUG) {\n        former",
        )],
    },
    Mutation {
        name: "the place is passed on to an install from before the uninstall",
        changes: &[("trust.rs", "turn.installed && turn.when > left", "turn.installed && (turn.when > left || BUG)")],
    },
    Mutation {
        name: "the place is passed on to the last one that installs",
        changes: &[(
            "trust.rs",
            "candidates().filter_map(install_after).min() else",
            "(if BUG { candidates().filter_map(install_after).max() } else { candidates().filter_map(install_after).min() }) else",
        )],
    },
    Mutation {
        name: "an uninstall of any principal counts",
        changes: &[(
            "installation.rs",
            "let installed = self.trusted(verdict).any(|known| known.claims.says_installed());",
            "let installed = self.trusted(verdict).any(|known| known.claims.says_installed())
                && !(BUG && self.principals.values().any(|known| known.claims.left_at().is_some()));",
        )],
    },
    Mutation {
        name: "the status is that of a principal that uninstalled, whatever others say",
        changes: &[(
            "installation.rs",
            "let installed = self.trusted(verdict).any(",
            "let installed = self.trusted(verdict).all(|known| !BUG || known.claims.left_at().is_none()) && self.trusted(verdict).any(",
        )],
    },
    Mutation {
        name: "a revoked principal stays trusted",
        changes: &[("trust.rs", "Self::Revoked => None,", "Self::Revoked => (BUG).then_some(Basis::Operator),")],
    },
    Mutation {
        name: "a revoked principal may hold the place",
        changes: &[("installation.rs", "!self.is_revoked() &&", "(BUG || !self.is_revoked()) &&")],
    },
    Mutation {
        name: "the holder of the place is trusted beside attested principals",
        changes: &[
            ("trust.rs", "if !attested.is_empty() || trust", "if !attested.is_empty() && !BUG || trust"),
            (
                "trust.rs",
                "trusted: trusted.into_iter().collect(),",
                "trusted: trusted.into_iter().chain(attested.into_iter().filter(|_| BUG)).collect(),",
            ),
        ],
    },
    Mutation {
        name: "`known` trusts on first use",
        changes: &[
            ("trust.rs", "|| trust == Trust::Known {", "|| trust == Trust::Known && !BUG {"),
            (
                "trust.rs",
                "Trust::Known => None,",
                "Trust::Known => claims.first_install().map(|(_, turn)| (Basis::FirstInstall, turn.when.0)),",
            ),
            ("fold.rs", "let is_open = trust != Trust::Known", "let is_open = (trust != Trust::Known || BUG)"),
        ],
    },
    Mutation {
        name: "any event counts as a first install",
        changes: &[(
            "trust.rs",
            "Trust::FirstInstall => claims.first_install()",
            "Trust::FirstInstall if BUG => claims.first_word.map(|(_, at)| (Basis::FirstInstall, at)),
             Trust::FirstInstall => claims.first_install()",
        )],
    },
    Mutation {
        name: "no installation is contested",
        changes: &[("trust.rs", "contested: principals.iter()", "contested: !BUG && principals.iter()")],
    },
    Mutation {
        name: "a principal that uninstalled contests",
        changes: &[("trust.rs", "&& known.claims.says_installed()\n", "&& (known.claims.says_installed() || BUG)\n")],
    },
    Mutation {
        name: "the first attestation holds, not the newest",
        changes: &[
            (
                "claims.rs",
                "Latest::join(&mut self.attestation,",
                "if !BUG || self.attestation.is_none() { Latest::join(&mut self.attestation,",
            ),
            (
                "claims.rs",
                "Latest { since: fact.stamp, value });\n            if let Some(occurred_at)",
                "Latest { since: fact.stamp, value }); }\n            if let Some(occurred_at)",
            ),
        ],
    },
    Mutation {
        name: "an import brings a revoked principal back no more",
        changes: &[(
            "claims.rs",
            "(is_weaker && known.value.0 != Attestation::Revoked)",
            "(is_weaker && (BUG || known.value.0 != Attestation::Revoked))",
        )],
    },
    Mutation {
        name: "an import replaces what an operator said",
        changes: &[("claims.rs", "|| (is_weaker &&", "|| (!BUG && is_weaker &&")],
    },
    Mutation {
        name: "the install of an import is forgotten",
        changes: &[(
            "claims.rs",
            "if let Some(occurred_at) = *installed_at {",
            "if let Some(occurred_at) = installed_at.filter(|_| !BUG) {",
        )],
    },
    Mutation {
        name: "any principal describes the portal",
        changes: &[(
            "record.rs",
            ".map(|known| &known.claims.description);",
            ".map(|known| &known.claims.description)
            .chain(self.principals.values().filter(|_| BUG).map(|known| &known.claims.description));",
        )],
    },
    Mutation {
        name: "installs of others are facts beside an attestation",
        changes: &[(
            "fold.rs",
            "&& !state.principals.values().any(Principal::is_attested);",
            "&& (BUG || !state.principals.values().any(Principal::is_attested));",
        )],
    },
    Mutation {
        name: "what is held stays held when its principal is trusted",
        changes: &[("fold.rs", "if holding.is_empty() {\n", "if holding.is_empty() || BUG {\n")],
    },
    Mutation {
        name: "what is held of all principals is released once one is trusted",
        changes: &[(
            "fold.rs",
            "let trusted = verdict.trusted.iter().map(|trusted| trusted.principal);",
            "let others = self.state.principals.keys().copied().filter(|_| BUG && !verdict.trusted.is_empty());
             let trusted = verdict.trusted.iter().map(|trusted| trusted.principal).chain(others);",
        )],
    },
    Mutation {
        name: "the very first event gives way",
        changes: &[(
            "fold.rs",
            ".filter(|held| held.offset != first.0)",
            ".filter(|held| held.offset != first.0 || BUG)",
        )],
    },
    Mutation {
        name: "the principals without facts are not limited",
        changes: &[(
            "fold.rs",
            ".saturating_sub(STRANGERS_MAX);",
            ".saturating_sub(if BUG { usize::MAX } else { STRANGERS_MAX });",
        )],
    },
    Mutation {
        name: "the holder gives way to a flood of installs",
        changes: &[
            (
                "installation.rs",
                "if holder(&self.principals) != kept {",
                "if !BUG && holder(&self.principals) != kept {",
            ),
            ("installation.rs", "kept.is_some_and(|holder|", "!BUG && kept.is_some_and(|holder|"),
        ],
    },
    Mutation {
        name: "attested principals are not limited",
        changes: &[("fold.rs", "if attested >= ATTESTED_MAX &&", "if !BUG && attested >= ATTESTED_MAX &&")],
    },
];
