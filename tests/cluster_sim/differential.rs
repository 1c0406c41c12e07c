//! The model of Redis against the real one: random commands of the kinds that Speak uses get equal
//! replies.

use speak::cluster::Value;
use support::random::Random;
use support::redis::{self as real, Redis as RealRedis};

use crate::redis::{Args, Executed, Redis};

const COMMANDS: usize = 10_000;

/// Returns a reply of the model as one of the real server.
fn real_value(value: &Value) -> real::Value {
    match value {
        Value::Nil => real::Value::Nil,
        Value::Int(number) => real::Value::Int(*number),
        Value::Text(text) => real::Value::Text(text.to_vec()),
        Value::Error(text) => real::Value::Error(text.to_string()),
        Value::Array(values) => real::Value::Array(values.iter().map(real_value).collect()),
    }
}

/// Returns a random command. Ids are low, so that they meet.
fn command(random: &mut Random) -> Args {
    let keys =
        ["{speak}:log", "{speak}:log", "{speak}:snapshots", "{speak}:lock", "{speak}:vouch:x"];
    let key = random.pick(&keys);
    let number = |random: &mut Random| random.below(40);
    let id = |random: &mut Random| format!("{}-{}", number(random), random.below(3));
    let bound = |random: &mut Random| match random.below(4) {
        0 => "-".to_owned(),
        1 => "+".to_owned(),
        2 => number(random).to_string(),
        _ => id(random),
    };
    let count = random.pick(&["0", "1", "2", "256"]);
    let value = random.pick(&["", "a", "b\r\n"]);
    let text = match random.below(23) {
        0..4 => format!("XADD {key} {} r {value}", id(random)),
        4 => format!("XADD {key} NOMKSTREAM {} r {value}", id(random)),
        5 => format!("XREVRANGE {key} {} {} COUNT {count}", bound(random), bound(random)),
        6 => format!("XRANGE {key} {} {}", bound(random), bound(random)),
        7 => format!("XREAD COUNT {count} STREAMS {key} {}", id(random)),
        // It waits for a tick of the server.
        8 if random.once_in(20) => {
            format!("XREAD COUNT {count} BLOCK 1 STREAMS {key} {}", id(random))
        }
        8 => format!("XLEN {key}"),
        9 => format!("XTRIM {key} MINID {}", id(random)),
        10 | 13 => format!("GET {key}"),
        11 => format!("SET {key} {value} NX PX 100000"),
        12 => format!("SET {key} {value}"),
        14 => format!("HSET {key} {} {value}", number(random)),
        15 => format!("HGETALL {key}"),
        16 => format!("PEXPIRE {key} 100000"),
        17 => format!("XADD {key} MAXLEN {} {} r {value}", random.below(3), id(random)),
        18 => format!("HGET {key} {}", number(random)),
        19 => format!("HLEN {key}"),
        20 => format!("PERSIST {key}"),
        21 => format!("UNLINK {key}"),
        _ => format!("DEL {key}"),
    };
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn the_model_replies_as_redis_does() {
    let server = RealRedis::start();
    let (mut client, mut model) = (server.client(), Redis::new(1_700_000_000_000));
    let mut random = Random::new(1);
    let mut kinds = [0; 5];
    for nth in 0..COMMANDS {
        let args = command(&mut random);
        let shown: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        let words: Vec<_> = shown.iter().map(|word| &**word).collect();
        let expected = client.command(&words);
        let reply = match model.execute(&args) {
            Executed::Reply(value) => value,
            // No other client adds an entry.
            Executed::Blocked(_) => Value::Nil,
        };
        assert_eq!(real_value(&reply), expected, "command {nth}: {shown:?}");
        kinds[match reply {
            Value::Nil => 0,
            Value::Int(_) => 1,
            Value::Text(_) => 2,
            Value::Error(_) => 3,
            Value::Array(_) => 4,
        }] += 1;
    }
    assert!(kinds.iter().all(|count| *count > 100), "{kinds:?}");
}
