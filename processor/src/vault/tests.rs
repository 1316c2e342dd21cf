use bitrix24::AppName;
use bitrix24::form::Form;
use domain::{Position, interpret};

use super::*;

fn raw(member: &str) -> RawEvent {
    let body = format!(
        "event=ONAPPINSTALL&ts=999000&auth[member_id]={member}&auth[application_token]=app-token-in-clear\
         &auth[access_token]=access-in-clear&auth[refresh_token]=refresh-in-clear&auth[user_id]=7&auth[scope]=crm,user"
    );
    let app = AppName::parse("crm-sync").expect("a name");
    RawEvent::new(app, Form::parse(body.as_bytes()).head(), body.into(), Timestamp::from_s(1_000_000))
}

fn keys(texts: &[&Secret]) -> VaultKeys {
    let text: String = texts.iter().map(|text| text.reveal()).collect();
    VaultKeys::parse(&text).expect("keys")
}

/// Both entries of an event, sealed.
fn sealed(vault: &Vault, member: &str) -> Vec<(VaultKey, VaultEntry, Bytes)> {
    let raw = raw(member);
    let event = interpret(&raw, Position { partition: 0, offset: 0 }).expect("an event");
    let taken = domain::InstallationState::default().vault_takes(&event, vault.keys().ids());
    let seal = |(key, entry): (VaultKey, VaultEntry)| {
        let value = vault.seal(&key, &entry, &raw).expect("sealed");
        (key, entry, value)
    };
    taken.into_iter().map(seal).collect()
}

#[test]
fn what_is_sealed_is_opened_with_its_key_and_shows_nothing_before() {
    let (key, _) = new_key();
    let vault = Vault::new(keys(&[&key]));
    for (key, entry, value) in sealed(&vault, "a223") {
        assert!(!String::from_utf8_lossy(&value).contains("in-clear"));
        assert_eq!(entry_of(&value).as_ref(), Some(&entry));
        match vault.open(&key, &value).expect("opened").1 {
            Content::ApplicationToken(token) => assert_eq!(token.reveal(), "app-token-in-clear"),
            Content::Tokens(pair) => {
                assert_eq!(pair.access_token.reveal(), "access-in-clear");
                assert_eq!(pair.refresh_token.reveal(), "refresh-in-clear");
                assert_eq!((pair.user_id.as_deref(), pair.expires_at.s()), (Some("7"), 1_002_600));
                assert_eq!(pair.scope, ["crm", "user"]);
            }
        }
    }
}

#[test]
fn entries_of_an_hour_share_a_secret_and_no_nonce() {
    let (key, _) = new_key();
    let (vault, restarted) = (Vault::new(keys(&[&key])), Vault::new(keys(&[&key])));
    let part = |value: &Bytes, name: &str| -> serde_json::Value {
        serde_json::from_slice::<serde_json::Value>(value).expect("JSON")[name].clone()
    };
    let entries = [sealed(&vault, "a223"), sealed(&vault, "a223"), sealed(&restarted, "a223")].concat();
    let nonces: std::collections::BTreeSet<String> =
        entries.iter().map(|(_, _, value)| format!("{} {}", part(value, "enc"), part(value, "number"))).collect();
    assert_eq!(nonces.len(), entries.len());
    assert_eq!(part(&entries[0].2, "enc"), part(&entries[3].2, "enc"));
    assert_ne!(part(&entries[0].2, "enc"), part(&entries[4].2, "enc"), "another process");
    assert!(entries.iter().all(|(key, _, value)| restarted.open(key, value).is_ok()));
}

#[test]
fn an_entry_opens_in_its_own_place_alone() {
    let (key, _) = new_key();
    let vault = Vault::new(keys(&[&key]));
    let (one, other) = (sealed(&vault, "a223"), sealed(&vault, "b334"));
    for (index, (key, _, value)) in one.iter().enumerate() {
        assert!(vault.open(key, value).is_ok());
        assert_eq!(vault.open(&other[index].0, value).err(), Some(OpenError::Damaged), "of another portal");
        assert_eq!(vault.open(&one[1 - index].0, value).err(), Some(OpenError::Damaged), "of another kind");
        assert_eq!(vault.open(key, b"{}").err(), Some(OpenError::Damaged));
        let cut = String::from_utf8_lossy(value).replace("\"ciphertext\":\"", "\"ciphertext\":\"AAAA");
        assert_eq!(vault.open(key, cut.as_bytes()).err(), Some(OpenError::Damaged));
    }
}

#[test]
fn two_keys_open_during_a_rotation_and_the_first_one_seals() {
    let ((old, old_id), (new, new_id)) = (new_key(), new_key());
    let before = Vault::new(keys(&[&old]));
    let during = Vault::new(keys(&[&new, &old]));
    let after = Vault::new(keys(&[&new]));
    for (key, entry, value) in sealed(&before, "a223") {
        assert_eq!(entry.key, old_id);
        assert!(during.open(&key, &value).is_ok());
        assert_eq!(after.open(&key, &value).err(), Some(OpenError::NoKey(old_id.clone())));
        let record = event_log::Record {
            key: Some(key.to_string()),
            value: Some(value),
            headers: vec![],
            at: entry.stamp.received_at,
        };
        let mut done = rekey::Rekeyed::default();
        let record = during.rekeyed(record, &mut done).expect("sealed again");
        let opened = after.open(&key, record.value.as_deref().expect("a value")).expect("opened").0;
        assert_eq!(opened, VaultEntry { key: new_id.clone(), ..entry });
        assert!(during.rekeyed(record, &mut done).is_none());
        assert_eq!((done.unchanged, done.unopened.len()), (1, 0));
    }
    assert_eq!(sealed(&during, "a223")[0].1.key, new_id);
}

#[test]
fn a_mistake_in_the_keys_is_told_without_them() {
    let (key, id) = new_key();
    let line = key.reveal().lines().nth(1).expect("a key").to_owned();
    let other = new_key().0;
    let other = other.reveal().lines().nth(1).expect("a key").split(' ').nth(2).expect("a key");
    let many: String = (0..5).map(|_| new_key().0.reveal().to_owned()).collect();
    for (text, reason) in [
        ("", "holds no key"),
        ("# nothing", "holds no key"),
        ("garbage", "line 1 is no key"),
        (&format!("{line} more"), "line 1 is no key"),
        (&format!("\n{}", &line[..line.len() - 8]), "line 2 is no key"),
        (&format!("hookledger-vault-1 {id} {other}"), "line 1 is damaged"),
        (&format!("{line}\n{line}"), "line 2 is the key"),
        (&many, "holds 5 keys"),
    ] {
        let error = VaultKeys::parse(text).expect_err("a mistake");
        assert!(error.contains(reason), "{error}");
        let secret = line.split(' ').nth(2).expect("a key");
        assert!(!error.contains(&secret[..8]) && !error.contains(&other[..8]), "{error}");
    }
}

#[test]
fn a_key_file_is_made_once_and_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("vault.key");
    let id = make_key_file(&path).expect("made");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).expect("read");
    assert_eq!(VaultKeys::parse(&text).expect("a key").ids(), [id]);
    assert!(make_key_file(&path).is_err(), "none is overwritten");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
}
