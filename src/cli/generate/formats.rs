//! Templates of the manual page and of completions for bash, zsh and fish.

/// Templates of a text, with `%1` to `%5` for values.
pub(super) struct Format {
    pub name: &'static str,
    /// Bytes with a meaning in this format, and their form in values.
    pub escapes: &'static [(u8, &'static str)],
    /// Values: name and version, purpose of the program, syntax of values.
    pub begin: &'static str,
    /// For each command. Values: name, usage, purpose, details.
    pub command: &'static str,
    pub middle: &'static str,
    /// Before the options of a group: the server or a command. Values: name of the group (two).
    pub group: &'static str,
    /// Name of the server's group.
    pub server: &'static str,
    /// First part of the name of a command's group. The second part is the command.
    pub command_prefix: &'static str,
    /// For each option. Values: group (two), name, kind of the value, help.
    pub option: &'static str,
    /// After `option`, if it has a value: of any kind, a `FILE`, a `DIR`, a `LEVEL`.
    pub value: &'static str,
    pub file: &'static str,
    pub dir: &'static str,
    pub level: &'static str,
    pub option_end: &'static str,
    pub group_end: &'static str,
    pub end: &'static str,
}

pub(super) const FORMATS: [Format; 4] = [MAN, BASH, ZSH, FISH];

/// For groff and mandoc. They print an unescaped hyphen as one that a shell does not understand.
const MAN: Format = Format {
    name: "man",
    escapes: &[(b'\\', "\\e"), (b'-', "\\-")],
    begin: r#".TH SPEAK 1 "" "%1" "User Commands"
.SH NAME
speak \- %2
.SH SYNOPSIS
.B speak
.RI [ OPTIONS ]
.br
.B speak
.IR "COMMAND " [ OPTIONS "] ..."
.SH DESCRIPTION
Speak carries messages between web pages and programs: by long polls, event streams, WebSockets
and JSONP, in channels that keep a short history.
It runs in the foreground and logs to standard error.
A command talks to a server instead, or reads a journal.
.PP
%3The command line wins over the environment.
There, an empty variable counts as unset, and lists have commas.
.SH COMMANDS
"#,
    command: ".SS %2\nUse it to %3.\n%4",
    middle: ".SH OPTIONS\n",
    group: ".SS %1%2\n",
    server: "speak",
    command_prefix: "speak ",
    option: ".TP\n.B \\-\\-%3",
    // `\fI` and not `.I`: name and value are on one line.
    value: " \\fI%4\\fR",
    file: " \\fI%4\\fR",
    dir: " \\fI%4\\fR",
    level: " \\fI%4\\fR",
    option_end: "\n%5\n",
    group_end: "",
    end: r#".SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Accept no more clients, complete all pending reads, send queued responses, and exit within
5 seconds.
A second signal ends the server at once.
.TP
.B SIGUSR2
Start the program again and let the new process take over channels, connections and clients.
.TP
.B SIGHUP
If standard error is a terminal, stop as at SIGTERM.
Otherwise, continue.
.SH EXIT STATUS
.TP
.B 0
Success, or a stop by a signal.
.TP
.B 1
The server cannot start or cannot save its state; a command failed; the doctor found a failure;
a journal is damaged.
.TP
.B 2
An option or its value is invalid.
.TP
.B 3
The doctor found nothing worse than a warning.
.SH EXAMPLES
Serve behind a proxy on the same machine; write the output of a program; read it elsewhere:
.PP
.EX
speak \-\-listen 127.0.0.1:8080 \-\-trust\-proxy 127.0.0.1
make 2>&1 | speak write build \- >/dev/null
speak read build \-\-server https://chat.example.org \-\-from 0 \-\-follow
.EE
"#,
};

/// Does not need the package bash-completion. In the lists, the kind of a value follows its option,
/// in capitals.
const BASH: Format = Format {
    name: "bash",
    escapes: &[],
    begin: r"_speak() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words
    local commands='",
    command: "%1 ",
    middle: "'
    case ${COMP_WORDS[1]} in
",
    group: "    %1%2) words=' ",
    server: "-* | \"\"",
    command_prefix: "",
    option: "--%3 ",
    value: "%4 ",
    file: "%4 ",
    dir: "%4 ",
    level: "%4 ",
    option_end: "",
    group_end: "' ;;\n",
    end: r#"    esac
    [ "$COMP_CWORD" -gt 1 ] || words+=$commands
    case $words in
    *" $before FILE "*) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    *" $before DIR "*) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    *" $before LEVEL "*) words='error warn info debug' ;;
    *" $before "[[:upper:]]*) words= ;;
    esac
    mapfile -t COMPREPLY < <(compgen -X '[[:upper:]]*' -W "$words" -- "$word")
}
complete -F _speak speak
"#,
};

const ZSH: Format = Format {
    name: "zsh",
    escapes: &[(b'\'', "'\\''"), (b'\\', "\\\\"), (b'[', "\\["), (b']', "\\]"), (b':', "\\:")],
    begin: "#compdef speak
_speak() {
    local -a own commands=(
",
    command: "        '%1:%3'\n",
    middle: "    )
    case $words[2] in
",
    group: "    %1%2) own=(\n",
    server: "-* | \"\"",
    command_prefix: "",
    option: "        '*--%3[%5]",
    value: ":%4:()",
    file: ":%4:_files",
    dir: ":%4:_files -/",
    level: ":%4:(error warn info debug)",
    option_end: "'\n",
    group_end: "    ) ;;\n",
    end: r#"    esac
    (( CURRENT > 2 )) || _describe command commands
    _arguments -s $own '*: :'
}
_speak "$@"
"#,
};

const FISH: Format = Format {
    name: "fish",
    escapes: &[(b'\\', "\\\\"), (b'\'', "\\'")],
    begin: "complete -c speak -f\n",
    command: "complete -c speak -n __fish_use_subcommand -a %1 -d '%3'\n",
    middle: "",
    group: "",
    server: "__fish_use_subcommand",
    command_prefix: "__fish_seen_subcommand_from ",
    option: "complete -c speak -n '%1%2' -l %3 -d '%5'",
    value: " -x",
    file: " -r -F",
    dir: " -x -a '(__fish_complete_directories)'",
    level: " -x -a 'error warn info debug'",
    option_end: "\n",
    group_end: "",
    end: "",
};
