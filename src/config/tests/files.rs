//! Variables that name files: reading, valid combinations, and errors for invalid ones.

use super::*;
use crate::credentials::tests::authority::{Authority, Folder};

/// Addresses with TLS.
const HTTPS: [(&str, &str); 2] = [
    ("INVENTORY_GRPC_ADDR", "https://inventory:50051"),
    ("RESERVATION_API_BASE", "https://reservation-api"),
];

/// Valid files, by the suffix of their variables' names.
struct Files {
    folder: Folder,
    paths: BTreeMap<&'static str, String>,
}

impl Files {
    fn new() -> Self {
        let folder = Folder::new();
        let authority = Authority::new("authority");
        let leaf = authority.signs("me");
        let files = [
            ("CA_FILE", authority.pem()),
            ("CLIENT_CERT_FILE", leaf.certificate),
            ("KEY_FILE", leaf.key),
            ("TOKEN_FILE", "s3cr3t".to_owned()),
        ];
        let write = |(name, text)| (name, folder.write(name, text).to_str().unwrap().to_owned());
        Self { paths: files.map(write).into(), folder }
    }

    /// Returns the variables of one service with the changes in `but`; `None` removes a variable.
    fn of(&self, service: &str, but: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
        let mut paths = self.paths.clone();
        for (name, value) in but {
            paths.remove(name);
            let Some(value) = value else { continue };
            let (name, _) = self.paths.get_key_value(name).unwrap();
            paths.insert(name, (*value).to_owned());
        }
        paths.into_iter().map(|(name, path)| (format!("{service}_{name}"), path)).collect()
    }
}

fn with_tls(vars: &[(String, String)]) -> Result<Config, ConfigErrors> {
    let vars = vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    with(&HTTPS.into_iter().chain(vars).collect::<Vec<_>>())
}

const SERVICES: [&str; 2] = ["INVENTORY", "RESERVATION_API"];

#[test]
fn valid_files_are_read_and_shown_by_their_paths_only() {
    let files = Files::new();
    for service in SERVICES {
        let vars = files.of(service, &[]);
        let config = with_tls(&vars).unwrap();
        let shown: Vec<_> = config.effective().collect();
        for (name, path) in &vars {
            assert!(shown.iter().any(|(shown, value)| (*shown, value) == (name, path)), "{name}");
        }
        assert!(!format!("{config:?}").contains("s3cr3t"));
        let mut all = [config.inventory.credentials, config.reservation.credentials];
        if service == "RESERVATION_API" {
            all.reverse();
        }
        let [Credentials { roots, identity, token }, other] = all;
        assert!(roots.is_some() && identity.is_some(), "{service}");
        assert_eq!(*token.unwrap().current(), "Bearer s3cr3t");
        assert!(other.roots.is_none() && other.identity.is_none() && other.token.is_none());
    }
}

#[test]
fn a_token_needs_no_tls_but_certificates_do() {
    let files = Files::new();
    for (service, (address, _)) in SERVICES.into_iter().zip(HTTPS) {
        let vars = files.of(service, &[]);
        let vars: Vec<_> = vars.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let errors = with(&vars).unwrap_err();
        let said: Vec<_> = errors.as_slice().iter().map(ToString::to_string).collect();
        let names =
            ["CA_FILE", "CLIENT_CERT_FILE", "KEY_FILE"].map(|n| format!("{service}_{n} is"));
        assert_eq!(said.len(), names.len(), "{said:?}");
        for (line, name) in said.iter().zip(names) {
            assert!(line.starts_with(&name), "{line}");
            assert!(line.ends_with(&format!("only where {address} is an https URL")), "{line}");
        }
    }
}

#[test]
fn a_fault_of_a_file_is_reported_with_its_variable_and_path() {
    let files = Files::new();
    let key = files.paths["KEY_FILE"].clone();
    let other = Authority::new("other").signs("me").key;
    let other = files.folder.write("other", other).to_str().unwrap().to_owned();
    for service in SERVICES {
        for (name, given, what) in [
            ("CA_FILE", Some("/nowhere"), "No such file"),
            ("CA_FILE", Some(&*key), "holds no PEM certificate"),
            ("CLIENT_CERT_FILE", Some("/"), "not a file"),
            ("KEY_FILE", Some(&*other), "KeyMismatch"),
            ("TOKEN_FILE", Some(&*key), "something else than one token"),
            ("TOKEN_FILE", Some("/\u{fffd}"), "UTF-8 text"),
        ] {
            let errors = with_tls(&files.of(service, &[(name, given)])).unwrap_err();
            let said = errors.to_string();
            assert_eq!(errors.as_slice().len(), 1, "{said}");
            let start = format!("{service}_{name} is {:?}: must be ", given.unwrap());
            assert!(said.starts_with(&start) && said.contains(what), "{said}");
        }
        for (alone, missing) in [("KEY_FILE", "CLIENT_CERT_FILE"), ("CLIENT_CERT_FILE", "KEY_FILE")]
        {
            let said = with_tls(&files.of(service, &[(missing, None)])).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{service}_{alone} is ")), "{said}");
            let end = format!("set together with {service}_{missing}, which is not set");
            assert!(said.ends_with(&end), "{said}");
        }
    }
}
