//! `package.repository`: where packages come from, as a file of apt's or dnf's, with the key that signs it beside it.
//! Unsigned only where the book says so in as many words.

use lockstep_apis::v1alpha::{PackageBackend, PackageRepository, Value};

use crate::action::{Done, Outcome, Scope};

pub(super) fn perform(wanted: &PackageRepository, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let is_dnfs = is_dnfs(wanted.backend(), scope);
    let name = &wanted.name;
    let (list, key) = match is_dnfs {
        true => (format!("/etc/yum.repos.d/{name}.repo"), format!("/etc/pki/rpm-gpg/{name}.asc")),
        false => (format!("/etc/apt/sources.list.d/{name}.sources"), format!("/etc/apt/keyrings/{name}.asc")),
    };
    if wanted.absent {
        return together([file_absent(&list, scope), file_absent(&key, scope)]);
    }
    let text = if is_dnfs { dnf_text(wanted, &key) } else { text(wanted, &key) };
    let text = text.map_err(|fault| Done::failed("InvalidParameters", fault))?;
    // The key first: no moment has a list whose key is missing.
    let keyed = match wanted.key.as_deref().filter(|key| !key.is_empty()) {
        Some(content) => file(&key, content, scope),
        None => file_absent(&key, scope),
    };
    if keyed.outcome == Outcome::Failed {
        return Err(keyed);
    }
    together([keyed, file(&list, &text, scope)])
}

/// Whether it is a repository of rpm's packages.
fn is_dnfs(backend: PackageBackend, scope: &Scope<'_>) -> bool {
    let is_there = |path: &str| scope.host.exists(path).unwrap_or(false);
    match backend {
        PackageBackend::Dnf => true,
        PackageBackend::Apt | PackageBackend::PackageKit => false,
        PackageBackend::Unspecified | PackageBackend::Auto => is_there("/etc/yum.repos.d") && !is_there("/etc/apt"),
    }
}

/// The deb822 text.
fn text(wanted: &PackageRepository, key: &str) -> Result<String, String> {
    let has_key = has_key(wanted)?;
    if wanted.uris.is_empty() || wanted.suites.is_empty() {
        return Err("uris and suites are missing".to_owned());
    }
    let is_flat = wanted.suites.iter().any(|suite| suite.ends_with('/'));
    if is_flat != wanted.components.is_empty() {
        return Err("components go with suites, and a suite that ends with / is a folder that has none".to_owned());
    }
    let mut text = format!("Types: deb\nURIs: {}\nSuites: {}\n", wanted.uris.join(" "), wanted.suites.join(" "));
    for (field, words) in [("Components", &wanted.components), ("Architectures", &wanted.architectures)] {
        if !words.is_empty() {
            text.push_str(&format!("{field}: {}\n", words.join(" ")));
        }
    }
    text.push_str(&if has_key { format!("Signed-By: {key}\n") } else { "Trusted: yes\n".to_owned() });
    Ok(text)
}

/// The text of a `.repo` file.
fn dnf_text(wanted: &PackageRepository, key: &str) -> Result<String, String> {
    let has_key = has_key(wanted)?;
    if wanted.uris.is_empty() {
        return Err("uris are missing".to_owned());
    }
    if !(wanted.suites.is_empty() && wanted.components.is_empty() && wanted.architectures.is_empty()) {
        return Err("suites, components and architectures are apt's; dnf has only uris".to_owned());
    }
    let (name, uris) = (&wanted.name, wanted.uris.join(" "));
    let signed = if has_key { format!("gpgcheck=1\ngpgkey=file://{key}\n") } else { "gpgcheck=0\n".to_owned() };
    Ok(format!("[{name}]\nname={name}\nbaseurl={uris}\nenabled=1\n{signed}"))
}

/// Whether there is a key; if not, the book must say so in as many words.
fn has_key(wanted: &PackageRepository) -> Result<bool, String> {
    let has_key = wanted.key.as_deref().is_some_and(|key| !key.is_empty());
    if let Some(key) = wanted.key.as_deref().filter(|key| !key.is_empty())
        && !key.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    {
        return Err("key is no armoured OpenPGP key: it begins with -----BEGIN PGP PUBLIC KEY BLOCK-----".to_owned());
    }
    match (has_key, wanted.unsigned) {
        (true, true) => Err("key and unsigned: true exclude each other".to_owned()),
        (false, false) => Err("neither a key nor unsigned: true: give the key that signs the repository".to_owned()),
        (has_key, _) => Ok(has_key),
    }
}

fn file(path: &str, content: &str, scope: &mut Scope<'_>) -> Done {
    let parameters = Value::map([
        ("path", Value::text(path)),
        ("content", Value::text(content)),
        ("mode", Value::text("0644")),
        ("owner", Value::text("root")),
        ("group", Value::text("root")),
        ("parents", true.into()),
    ]);
    crate::perform("file.managed", &parameters, scope)
}

fn file_absent(path: &str, scope: &mut Scope<'_>) -> Done {
    crate::perform("file.absent", &Value::map([("path", Value::text(path))]), scope)
}

/// Two files as one task: Changed if one is.
fn together(done: [Done; 2]) -> Result<Done, Done> {
    let [mut first, second] = done;
    for done in [&first, &second] {
        if !matches!(done.outcome, Outcome::Ok | Outcome::Changed) {
            return Err(done.clone());
        }
    }
    match (first.outcome, second.outcome) {
        (_, Outcome::Ok) => Ok(first),
        (Outcome::Ok, _) => Ok(second),
        _ => {
            let diff = second.diff.as_ref().map(|diff| diff.text.as_str()).unwrap_or_default();
            if let Some(all) = &mut first.diff {
                all.text.push_str(diff);
            }
            Ok(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> PackageRepository {
        PackageRepository {
            name: "shop".into(),
            uris: vec!["https://deb.example/".into()],
            suites: vec!["stable".into()],
            components: vec!["main".into()],
            key: Some("-----BEGIN PGP PUBLIC KEY BLOCK-----\n".into()),
            ..PackageRepository::default()
        }
    }

    #[test]
    fn a_repository_names_its_own_key() {
        let text = text(&signed(), "/k.asc").unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: https://deb.example/\nSuites: stable\nComponents: main\nSigned-By: /k.asc\n"
        );
    }

    #[test]
    fn unsigned_is_said_in_as_many_words() {
        let unsigned = PackageRepository { key: None, ..signed() };
        assert!(text(&unsigned, "/k").is_err());
        assert!(
            text(&PackageRepository { unsigned: true, ..unsigned.clone() }, "/k").unwrap().contains("Trusted: yes")
        );
        assert!(text(&PackageRepository { unsigned: true, ..signed() }, "/k").is_err());
        // A short key id, or the address of a key, is no key.
        assert!(text(&PackageRepository { key: Some("0xDEADBEEF".into()), ..signed() }, "/k").is_err());
        assert!(text(&PackageRepository { suites: vec!["./".into()], ..signed() }, "/k").is_err());
    }

    #[test]
    fn dnf_has_its_own_words() {
        let ours = PackageRepository { suites: Vec::new(), components: Vec::new(), ..signed() };
        assert_eq!(
            dnf_text(&ours, "/k.asc").unwrap(),
            "[shop]\nname=shop\nbaseurl=https://deb.example/\nenabled=1\ngpgcheck=1\ngpgkey=file:///k.asc\n"
        );
        let unsigned = PackageRepository { key: None, unsigned: true, ..ours.clone() };
        assert!(dnf_text(&unsigned, "/k").unwrap().ends_with("gpgcheck=0\n"));
        assert!(dnf_text(&PackageRepository { unsigned: false, ..unsigned }, "/k").is_err());
        assert!(dnf_text(&signed(), "/k").is_err(), "suites are apt's");
        assert!(dnf_text(&PackageRepository { uris: Vec::new(), ..ours }, "/k").is_err());
    }
}
