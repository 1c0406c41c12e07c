//! The URL of the cluster with its password, which is better not on the command line.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use crate::cluster::ClusterUrl;

/// Environment variable with the password of the cluster.
pub const PASSWORD_ENV: &str = "SPEAK_CLUSTER_PASSWORD";
/// Environment variable with the name of a file that has the password, for instance a credential of
/// systemd.
pub const PASSWORD_FILE_ENV: &str = "SPEAK_CLUSTER_PASSWORD_FILE";
/// A larger file is no password.
const PASSWORD_MAX: u64 = 4096;

/// Parses the value of `--cluster`. Takes the password from the environment variable
/// `SPEAK_CLUSTER_PASSWORD`, or from the file that `SPEAK_CLUSTER_PASSWORD_FILE` names, if one of
/// them is set. A newline at the end of the file does not count.
///
/// # Errors
///
/// A description without secrets: of the URL, of a file that cannot be read, or of several
/// passwords.
pub fn cluster_url(text: &str) -> Result<ClusterUrl, String> {
    with_password(text, |name| env::var_os(name))
}

fn with_password(
    text: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<ClusterUrl, String> {
    let mut url = ClusterUrl::parse(text).map_err(|error| format!("--cluster: {error}"))?;
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let mut set_password =
        |password: &[u8]| url.set_password(password).map_err(|error| format!("--cluster: {error}"));
    if let Some(password) = set(PASSWORD_ENV) {
        set_password(password.as_bytes())?;
    }
    if let Some(path) = set(PASSWORD_FILE_ENV) {
        let mut password = Vec::new();
        File::open(path)
            .and_then(|file| file.take(PASSWORD_MAX + 1).read_to_end(&mut password))
            .map_err(|error| format!("cannot read the file of {PASSWORD_FILE_ENV}: {error}"))?;
        let line = password.strip_suffix(b"\n").unwrap_or(&password);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || password.len() as u64 > PASSWORD_MAX {
            return Err(format!("the file of {PASSWORD_FILE_ENV} is empty, or too large"));
        }
        set_password(line)?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_password_comes_from_one_place() {
        let path = env::temp_dir().join(format!("speak-{}-password", std::process::id()));
        fs::write(&path, "of the file\n").unwrap();
        let password = |url: &str, variables: &[(&str, OsString)]| {
            let variable = |name: &str| {
                let mut values = variables.iter().filter(|(its, _)| *its == name);
                values.next().map(|(_, value)| value.clone())
            };
            with_password(url, variable).map(|url| url.login().password.clone())
        };
        let some = |text: &str| Ok(Some(text.as_bytes().into()));
        let variable = (PASSWORD_ENV, "of the environment".into());
        let file = (PASSWORD_FILE_ENV, path.clone().into());
        let missing = (PASSWORD_FILE_ENV, path.with_extension("missing").into());
        assert_eq!(password("redis://a", &[]), Ok(None));
        assert_eq!(password("redis://a", &[(PASSWORD_ENV, "".into())]), Ok(None));
        assert_eq!(password("redis://:x@a", &[]), some("x"));
        assert_eq!(
            password("redis://a", std::slice::from_ref(&variable)),
            some("of the environment")
        );
        assert_eq!(password("redis://a", std::slice::from_ref(&file)), some("of the file"));
        for (url, variables) in [
            ("redis://:x@a", vec![variable.clone()]),
            ("redis://:x@a", vec![file.clone()]),
            ("redis://a", vec![variable, file.clone()]),
        ] {
            assert!(password(url, &variables).unwrap_err().contains("given twice"));
        }
        assert!(password("redis://a", &[missing]).unwrap_err().contains("cannot read"));
        for content in ["", "\n", &"x".repeat(5000)] {
            fs::write(&path, content).unwrap();
            assert!(
                password("redis://a", std::slice::from_ref(&file)).unwrap_err().contains("empty")
            );
        }
        fs::remove_file(path).unwrap();
    }
}
