//! Parses the command line and the environment into [`Options`].
//!
//! One table, [`SPECS`], holds the name, default, help and setter of each option. Parsing,
//! `--help`, the names of the environment variables, the manual page and completions come from it.

mod listen_addr;
mod nearest;
mod origin;
mod server_options;
mod spec;
mod values;

use std::ffi::OsString;

pub use listen_addr::ListenAddr;
pub(crate) use listen_addr::TLS_PREFIX;
pub(crate) use nearest::nearest;
pub(crate) use origin::parse_origin;
pub use server_options::{Options, SPECS};
pub use spec::{Arity, BadOption, Spec};
pub(crate) use spec::{OptionInfo, Parsed, Settings, option_infos, push_help, read, set};
pub(crate) use values::{nonzero, parse_bool, parse_duration};

/// Task on the command line.
#[derive(Debug)]
pub enum Command {
    /// Serve with these options.
    Run(Box<Options>),
    /// Print this text and exit.
    Print(String),
}

/// Reads the environment, then the command line, which wins. `arguments` begin after the name of
/// the program.
///
/// # Errors
///
/// [`BadOption`] for the first invalid option or value.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, BadOption> {
    let mut options = Options::defaults();
    for spec in SPECS {
        spec.set_from(&mut options, &variable)?;
    }
    Ok(match read(SPECS, &mut options, 0, arguments.into_iter().collect())? {
        Parsed::Operands(_) => {
            options.set_tls_defaults();
            check_combination(&options)?;
            Command::Run(Box::new(options))
        }
        Parsed::Help => Command::Print(help()),
        Parsed::Version => Command::Print(format!("{NAME_AND_VERSION}\n")),
    })
}

/// Rejects options that contradict each other.
fn check_combination(options: &Options) -> Result<(), BadOption> {
    if options.journal.is_some() && options.state.is_some() {
        return Err(BadOption(
            "--journal: not with --state: a journal holds all that a state file does, and after a \
             crash the two would differ; unset --state (in the environment: SPEAK_STATE=)"
                .into(),
        ));
    }
    if options.cluster.is_some() && (options.journal.is_some() || options.state.is_some()) {
        return Err(BadOption(
            "--cluster: not with --state or --journal: the nodes of a cluster share one state, and \
             a file of one of them would differ; unset both (in the environment: SPEAK_STATE= \
             SPEAK_JOURNAL=)"
                .into(),
        ));
    }
    if options.cluster_ca.is_some() && options.cluster.is_none() {
        return Err(BadOption(
            "--cluster-ca: only with --cluster; give --cluster rediss://HOST".into(),
        ));
    }
    check_tls(options)
}

/// Rejects options of TLS that lack another one.
fn check_tls(options: &Options) -> Result<(), BadOption> {
    let (certificates, keys) = (options.tls_cert.len(), options.tls_key.len());
    if certificates != keys {
        return Err(BadOption(format!(
            "--tls-cert: a key belongs to each certificate, and there are {certificates} \
             certificates and {keys} keys; give --tls-cert and --tls-key in pairs"
        )));
    }
    if let Some(address) = options.listen.iter().find(|it| matches!(it, ListenAddr::Tls(_)))
        && !options.has_tls()
    {
        return Err(BadOption(format!(
            "--listen {address}: needs a certificate; give --tls-cert FILE and --tls-key FILE"
        )));
    }
    // systemd may pass a listener with TLS.
    if options.redirect_https && !options.has_tls() && options.trust_proxy.is_empty() {
        return Err(BadOption(
            "--redirect-https: nothing speaks https; give --tls-cert FILE and --tls-key FILE, or \
             --trust-proxy ADDR for a proxy that does"
                .into(),
        ));
    }
    Ok(())
}

/// Returns a line for each variable that looks like an option and is none. `known` are the names
/// of other variables that the program reads.
pub fn unknown_variables(names: impl Iterator<Item = OsString>, known: &[&str]) -> Vec<String> {
    let variables: Vec<_> = SPECS.iter().map(Spec::variable).collect();
    let candidates = || variables.iter().map(String::as_str).chain(known.iter().copied());
    let mut lines = Vec::new();
    for name in names {
        let name = name.to_string_lossy();
        if name.starts_with("SPEAK_") && candidates().all(|candidate| candidate != name) {
            let (nearest, _) = nearest(&name, candidates()).expect("there are options");
            // A name may have a line break, and a log line is one line.
            let name = name.replace(char::is_control, "?");
            lines.push(format!("unknown variable {name}: the nearest is {nearest}; see --help"));
        }
    }
    lines
}

/// `speak` and its version, as `--version` prints them.
pub const NAME_AND_VERSION: &str = concat!("speak ", env!("CARGO_PKG_VERSION"));

/// The version without the name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Purpose of the program, for help and manual page.
pub(crate) const ABOUT: &str = "message and chat server for the web";

/// Syntax of values, and the environment as their other source, for help and manual page.
pub(crate) const VALUES: &str = "\
Times are in seconds (5, 0.2) or have a unit (200ms, 5s, 10m, 1h).
Sizes are in bytes or have a unit (64k, 1m, 2g, powers of 1,024).
The environment can set each option too: --poll-timeout is SPEAK_POLL_TIMEOUT.
";

fn help() -> String {
    let mut text = format!(
        "{NAME_AND_VERSION}: {ABOUT}\n\n\
         Usage: speak [OPTIONS]\n       \
         speak write|read|create|remove|kick|doctor ...   see speak read --help\n       \
         speak journal DIR   print what a journal holds\n\n\
         {VALUES}\n"
    );
    push_help(&mut text, &option_infos(SPECS));
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use log::LevelFilter;

    use super::*;
    use crate::api::AllowOrigin;
    use crate::log::SyncMode;

    fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Box<Options>, BadOption> {
        let variable = |name: &str| {
            environment.iter().find(|(its, _)| *its == name).map(|(_, value)| OsString::from(value))
        };
        match parse(arguments.iter().map(OsString::from), variable)? {
            Command::Run(options) => Ok(options),
            Command::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn defaults_match_the_documentation() {
        let options = parsed(&[], &[]).unwrap();
        let all = |port| ListenAddr::Tcp((Ipv6Addr::UNSPECIFIED, port).into());
        assert_eq!(options.listen, [all(8080), all(7732)]);
        assert_eq!(options.poll_timeout, Duration::from_secs(25));
        assert_eq!(options.connection_timeout, Duration::from_secs(5));
        assert_eq!(options.close_grace, Duration::ZERO);
        assert_eq!(
            (options.history, options.max_message, options.max_reply),
            (100, 65_536, 1 << 20)
        );
        assert_eq!(options.allow_origin(), AllowOrigin::Any);
        assert!(options.demo && options.sandbox && options.user.is_none());
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_an_empty_variable_is_unset() {
        let environment = [
            ("SPEAK_LISTEN", "1,127.0.0.1:2"),
            ("SPEAK_HISTORY", "7"),
            ("SPEAK_LOG", ""),
            ("SPEAK_NO_DEMO", "1"),
        ];
        let options = parsed(&[], &environment).unwrap();
        assert_eq!(options.listen.len(), 2);
        assert_eq!((options.history, options.log, options.demo), (7, LevelFilter::Info, false));
        let options = parsed(&["--listen=3", "--history", "8"], &environment).unwrap();
        assert_eq!(options.listen, [ListenAddr::Tcp((Ipv6Addr::UNSPECIFIED, 3).into())]);
        assert_eq!(options.admin_listen, None);
        let admin_listen =
            |text| parsed(&[], &[("SPEAK_ADMIN_LISTEN", text)]).unwrap().admin_listen;
        assert_eq!(
            admin_listen("unix:/run/speak/admin"),
            Some(ListenAddr::Unix("/run/speak/admin".into()))
        );
        assert_eq!(admin_listen(""), None);
        assert_eq!(options.history, 8);
    }

    #[test]
    fn an_error_names_the_bad_option_in_one_line() {
        let cases: &[(&[&str], &str)] = &[
            (&["--nonsense"], "--nonsense"),
            (&["stray"], "stray"),
            (&["-x"], "-x"),
            (&["--history"], "--history"),
            (&["--history", "many"], "--history"),
            (&["--poll-timeout=soon"], "--poll-timeout"),
            (&["--connection-timeout", "0"], "--connection-timeout"),
            (&["--listen", "nowhere"], "--listen"),
            (&["--listen", "127.0.0.1:99999"], "--listen"),
            (&["--listen", "unix:"], "--listen"),
            (&["--admin-listen", "nowhere"], "--admin-listen"),
            (&["--admin-listen="], "--admin-listen"),
            (&["--admin-listen"], "--admin-listen"),
            (&["--log", "loud"], "--log"),
            (&["--allow-origin", "example.org"], "--allow-origin"),
            (&["--allow-origin", "https://a/b"], "--allow-origin"),
            (&["--no-demo=x"], "--no-demo"),
            (&["--no-sandbox=x"], "--no-sandbox"),
            (&["--redirect-https=x"], "--redirect-https"),
            (&["--user", ""], "--user"),
            (&["--journal-sync", "never"], "--journal-sync"),
            (&["--journal", "/a", "--state", "/b"], "SPEAK_STATE="),
            (&["--cluster", "redis://a", "--state", "/b"], "--cluster"),
            (&["--cluster", "redis://a", "--journal", "/b"], "--cluster"),
            (&["--cluster-ca", "/b"], "--cluster-ca"),
            (&["--redirect-https"], "--redirect-https: nothing speaks https"),
            (&["--admin-listen", "tls:1"], "without TLS"),
            (&["--tls-cert="], "--tls-cert"),
        ];
        for (arguments, named) in cases {
            let BadOption(line) = parsed(arguments, &[]).unwrap_err();
            assert!(line.contains(named) && !line.contains('\n'), "{line}");
        }
        let BadOption(line) = parsed(&[], &[("SPEAK_RETENTION", "x")]).unwrap_err();
        assert!(line.starts_with("SPEAK_RETENTION: "), "{line}");
    }

    #[test]
    fn https_is_redirected_to_if_something_speaks_it() {
        let proxy = ["--redirect-https", "--trust-proxy", "10.0.0.1"];
        assert_eq!(parsed(&proxy, &[]).unwrap().https_port(), Some(443));
        assert_eq!(parsed(&proxy[1..], &[]).unwrap().https_port(), None);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn certificates_change_the_default_listeners() {
        let tls = |port| ListenAddr::Tls((Ipv6Addr::UNSPECIFIED, port).into());
        let plain = |port| ListenAddr::Tcp((Ipv6Addr::UNSPECIFIED, port).into());
        let pair = ["--tls-cert", "/c", "--tls-key", "/k"];
        let options = parsed(&pair, &[]).unwrap();
        assert_eq!(options.listen, [tls(443), tls(7732), plain(80)]);
        assert!(options.has_default_listeners() && options.redirect_https);
        assert_eq!(options.https_port(), Some(443));
        let with = |more: &[&str]| parsed(&[&pair[..], more].concat(), &[]);
        let options = with(&["--listen", "tls:[::]:8443", "--listen", "80"]).unwrap();
        assert_eq!(options.listen, [tls(8443), plain(80)]);
        assert!(!options.has_default_listeners());
        assert_eq!(options.https_port(), None);
        let redirecting = |listen: &str| with(&["--redirect-https", "--listen", listen]).unwrap();
        assert_eq!(redirecting("tls:8443").https_port(), Some(8443));
        assert_eq!(redirecting("tls:1").listen[0].to_string(), "tls:[::]:1");
        let options = parsed(
            &["--redirect-https"],
            &[
                ("SPEAK_TLS_CERT", "/a,/b"),
                ("SPEAK_TLS_KEY", "/c,/d"),
                ("SPEAK_LISTEN", "tls:1,tls:443"),
            ],
        );
        let options = options.unwrap();
        assert_eq!(options.https_port(), Some(443));
        assert_eq!(options.tls_key, [std::path::Path::new("/c"), std::path::Path::new("/d")]);
        for (arguments, named) in [
            (&["--listen", "tls:443"][..], "--listen tls:[::]:443: needs a certificate"),
            (&["--tls-cert", "/c"], "1 certificates and 0 keys"),
            (&["--listen", "tls:unix:/a"], "give tls:443"),
            (&["--listen", "tls:"], "give tls:443"),
        ] {
            let BadOption(line) = parsed(arguments, &[]).unwrap_err();
            assert!(line.contains(named) && !line.contains('\n'), "{line}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_build_without_tls_says_so() {
        for arguments in [["--listen", "tls:443"], ["--tls-cert", "/c"], ["--tls-key", "/k"]] {
            let BadOption(line) = parsed(&arguments, &[]).unwrap_err();
            assert!(line.contains("this build has no TLS; use the full one"), "{line}");
        }
    }

    #[test]
    fn an_empty_variable_unsets_the_state_file_of_the_unit_for_a_journal() {
        let options = parsed(&["--journal", "/a/"], &[("SPEAK_STATE", "")]).unwrap();
        assert_eq!(options.journal.as_deref(), Some(std::path::Path::new("/a/")));
        assert_eq!(options.journal_sync, SyncMode::Always);
        let options = parsed(&[], &[("SPEAK_JOURNAL_SYNC", "os"), ("SPEAK_STATE", "/b")]).unwrap();
        assert_eq!((options.journal, options.journal_sync), (None, SyncMode::Os));
    }

    #[test]
    fn help_names_every_option() {
        let text = help();
        assert!(SPECS.iter().all(|spec| text.contains(&format!("--{}", spec.name))));
        assert!(text.lines().all(|line| line.len() <= 110), "{text}");
    }
}
