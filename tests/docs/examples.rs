//! Runs the examples of the pages in their order, and compares the results that the pages show.
//!
//! - A block `sh`: its lines that begin with `curl`. A command that waits stays waiting.
//! - A block `json`: the response of the last command without one. Commands that take long come
//!   last. A single message is what the channel gets when the waiting command is interrupted.
//! - A block `text`: how the output of the last command begins, which is then interrupted.
//! - A block `js` is a module; a block `console` after it is its output.
//!
//! Times, auth codes and tokens differ each time. A code that a page shows for a response stands
//! for the real one from then on.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::common::{Client, Folder, GUARD, Running, Server, command, until};
use super::markdown::{self, Block};

/// Keys whose values differ each time.
const VARIES: [&str; 8] = ["time", "auth", "epoch", "timeout", "read", "write", "owner", "channel"];

/// The listeners: two public ones, and the admin listener after them.
const PORTS: [&str; 3] = ["localhost:8080", "localhost:7732", "localhost:9100"];

/// A reader of a page, with a server.
pub struct Session {
    server: Server,
    folder: Folder,
    /// Commands whose response has not been compared yet.
    commands: Vec<Example>,
    count: usize,
    /// Values of a page, with the real ones.
    known: Vec<(String, String)>,
}

struct Example {
    text: String,
    at: String,
    running: Running,
    output: PathBuf,
}

impl Session {
    pub fn start() -> Self {
        let folder = Folder::new("docs");
        fs::write(folder.file("file"), "a line\n").expect("a file");
        // A session has to live until a slow machine comes to the next line.
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--connection-timeout", "60s"]);
        let server = Server::spawn(command, 3);
        Self { server, folder, commands: Vec::new(), count: 0, known: Vec::new() }
    }

    /// Returns the metrics page.
    pub fn metrics(&self) -> String {
        let mut operator = Client::connect(self.server.address_of(2));
        operator.get("/metrics", &[]).ok().text().to_owned()
    }

    /// Returns the metrics page with the labels that exist after a call.
    pub fn metrics_after_a_call(&self) -> String {
        self.server.get("/health", &[]).ok();
        self.metrics()
    }

    /// Executes all blocks of a page.
    pub fn follow(&mut self, page: &str) {
        for block in markdown::blocks(page) {
            match &*block.language {
                "sh" => {
                    for command in commands_of(&block.text) {
                        self.begin(&command, &block.at);
                    }
                }
                "json" => self.compare_answer(&block),
                "text" => self.compare_beginning(&block),
                _ => {}
            }
        }
        // Commands that should wait for ever do; no other has failed.
        while let Some(mut command) = self.commands.pop() {
            if command.running.status().is_some() {
                command.ends_well();
            }
        }
    }

    /// Runs the commands in the prose of a page, except those with an ellipsis.
    pub fn run_code(&mut self, page: &str) {
        for code in markdown::code(&markdown::prose(page)) {
            if code.starts_with("curl ") && !code.contains('…') && code.contains("localhost") {
                self.begin(&code, page);
                self.commands.pop().expect("it has begun").ends_well();
            }
        }
    }

    /// Runs the scripts of a page in one process of node, one after the other.
    pub fn run_scripts(&self, page: &str) {
        let mut scripts: Vec<(Block, Option<Block>)> = Vec::new();
        for block in markdown::blocks(page) {
            match (&*block.language, scripts.last_mut()) {
                ("js", _) => scripts.push((block, None)),
                ("console", Some((_, printed @ None))) => *printed = Some(block),
                _ => {}
            }
        }
        assert!(!scripts.is_empty(), "{page} has no scripts");
        let task = scripts.iter().enumerate().map(|(place, (script, printed))| {
            let file = self.folder.file(&format!("{place}.mjs"));
            fs::write(&file, self.here(&script.text)).expect("a file in our folder");
            let lines = printed.as_ref().map(|it| it.text.lines().count());
            json!({ "file": file, "at": script.at, "lines": lines })
        });
        let task = task.collect::<Value>().to_string();
        let runner = markdown::path("tests/docs/run.mjs");
        let mut command = Command::new("node");
        command.arg(runner).arg(task).arg(GUARD.as_millis().to_string());
        let output = command.output().expect("node, which `make test` installs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let printed: Vec<Vec<String>> =
            serde_json::from_slice(&output.stdout).expect("what each of them printed");
        for ((script, expected), printed) in scripts.iter().zip(printed) {
            if let Some(expected) = expected {
                let lines: Vec<_> = expected.text.lines().map(|line| shape(line).0).collect();
                let printed: Vec<_> = printed.iter().map(|line| shape(line).0).collect();
                assert_eq!(printed[..lines.len()], lines, "{}", script.at);
            }
        }
    }

    /// Returns a text of a page with the real values.
    fn here(&self, text: &str) -> String {
        let mut text = text.replace("https://chat.example.org", "http://localhost:8080");
        for (place, port) in PORTS.iter().enumerate() {
            text = text.replace(port, &format!("127.0.0.1:{}", self.server.port(place)));
        }
        self.known.iter().fold(text, |text, (told, real)| text.replace(told, real))
    }

    /// Starts a command and returns once it has exited or waits.
    fn begin(&mut self, text: &str, at: &str) {
        let output = self.folder.file(&format!("{}.out", self.count));
        self.count += 1;
        let stdout = File::create(&output).expect("a file in our folder");
        let line = self.here(text).replacen("curl ", "exec curl -sS ", 1);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(self.folder.path());
        let running = Running::start(command.stdin(Stdio::null()).stdout(stdout));
        self.commands.push(Example { text: text.to_owned(), at: at.to_owned(), running, output });
        until(&format!("{at}: {text} ends or waits"), || {
            let statuses = self.commands.iter_mut().map(|it| it.running.status());
            let statuses: Vec<_> = statuses.collect();
            let waits = statuses.iter().filter(|status| status.is_none()).count();
            statuses.last().is_some_and(Option::is_some) || self.readers() == waits
        });
    }

    /// Returns the number of pending reads.
    fn readers(&self) -> usize {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix("speak_readers "));
        line.expect("a number of readers").parse().expect("a number")
    }

    /// Takes the command whose output the block shows.
    fn last_command(&mut self, block: &Block) -> Example {
        self.commands.pop().unwrap_or_else(|| panic!("{}: the output of nothing", block.at))
    }

    fn compare_answer(&mut self, block: &Block) {
        let told: String = block.text.lines().map(str::trim_start).collect();
        let real = if told.contains("\"type\":") && !told.contains("\"messages\":") {
            self.last_words()
        } else {
            self.last_command(block).answer()
        };
        let ((told_shape, told_values), (real_shape, real_values)) = (shape(&told), shape(&real));
        assert_eq!(real_shape, told_shape, "{}", block.at);
        let values = told_values.into_iter().zip(real_values).filter(|(told, real)| told != real);
        // Long enough to be a code, and no number.
        self.known
            .extend(values.filter(|(told, _)| told.len() >= 8 && told.parse::<u64>().is_err()));
    }

    /// Interrupts the pending read and returns the messages that its channel gets.
    fn last_words(&mut self) -> String {
        let command = self.commands.pop().expect("a read that waits");
        let (_, channel) = command.text.split_once("channel=").expect("it reads a channel");
        let channel = channel.split(['&', '\'']).next().expect("its name").to_owned();
        drop(command);
        let mut last = String::new();
        until("the channel is told", || {
            let answer = self.server.read(&channel, "-1");
            let text = answer.text();
            let (from, to) = (text.find('[').expect("a list"), text.rfind(']').expect("its end"));
            text[from + 1..to].clone_into(&mut last);
            last.contains("\"goodbye\"")
        });
        last
    }

    fn compare_beginning(&mut self, block: &Block) {
        let mut command = self.last_command(block);
        let lines: Vec<_> = block.text.lines().collect();
        until(&format!("{} comes", block.at), || {
            command.running.status().is_some()
                || command.so_far().matches('\n').count() >= lines.len()
        });
        let so_far = command.so_far();
        assert!(so_far.lines().count() >= lines.len(), "{}: {so_far}", block.at);
        for (told, real) in lines.iter().zip(so_far.lines()) {
            // A cursor's epoch, and a date.
            if told.starts_with("id: ") || told.starts_with("Date: ") {
                let after = |line: &str| line.rsplit_once(':').map(|(_, rest)| rest.to_owned());
                let is_equal = told.starts_with("Date: ") || after(told) == after(real);
                assert!(is_equal, "{}: {real}, not {told}", block.at);
                assert_eq!(told[..4], real[..4], "{}", block.at);
            } else {
                assert_eq!(shape(real).0, shape(told).0, "{}", block.at);
            }
        }
    }
}

impl Example {
    fn so_far(&self) -> String {
        fs::read_to_string(&self.output).expect("its output")
    }

    /// Returns the output of a command that exits by itself.
    fn answer(mut self) -> String {
        self.running.end(&format!("{}: {}", self.at, self.text));
        self.so_far()
    }

    /// Asserts that the command exits by itself, with success.
    fn ends_well(mut self) {
        let status = self.running.end(&format!("{}: {}", self.at, self.text));
        let output = fs::read(&self.output).expect("its output");
        let output = String::from_utf8_lossy(&output);
        assert!(status.success(), "{}: {}: {status:?}", self.at, self.text);
        assert!(!output.contains("\"error\":"), "{}: {}: {output}", self.at, self.text);
    }
}

/// Returns the lines with `curl` of a block, each with its continuation lines.
fn commands_of(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    whole.lines().filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

/// Returns JSON without the values that vary, and those values.
fn shape(json: &str) -> (String, Vec<String>) {
    let (mut shape, mut values) = (String::new(), Vec::new());
    let mut rest = json.trim_end();
    let key_of = |rest: &str| {
        let key =
            VARIES.iter().map(|key| format!("\"{key}\":")).find(|key| rest.starts_with(&**key))?;
        // Only a name of /create differs each time.
        let is_chosen = key == "\"channel\":" && !rest[key.len()..].starts_with("\"~");
        (!is_chosen).then_some(key)
    };
    while let Some(letter) = rest.chars().next() {
        if let Some(key) = key_of(rest) {
            rest = &rest[key.len()..];
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            values.push(rest[..end].trim_matches('"').to_owned());
            shape.push_str(&key);
            shape.push('?');
            rest = &rest[end..];
        } else {
            shape.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    (shape, values)
}
