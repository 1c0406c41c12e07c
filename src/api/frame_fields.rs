//! The fields of a frame that a call can have. All others are skipped while they are parsed: they
//! cost no memory, however many there are.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess};
use serde_core::de::{SeqAccess, Visitor};
use serde_json::Number;

use super::params::Param;
use crate::hub::CHANNELS_PER_READ_MAX;

/// Elements that are kept of a list: with one more than a read can name, the read is refused.
const LIST_MAX: usize = CHANNELS_PER_READ_MAX + 1;

/// Fields of a frame. If a field is repeated, the last one counts.
#[derive(Default)]
pub(super) struct FrameFields<'a> {
    pub(super) call: Option<FrameValue<'a>>,
    pub(super) reference: Option<FrameValue<'a>>,
    pub(super) parameters: Vec<(Param, FrameValue<'a>)>,
}

/// Value of a field.
#[derive(Debug, PartialEq)]
pub(super) enum FrameValue<'a> {
    Text(Cow<'a, str>),
    Number(Number),
    /// The first elements of a list.
    List(Vec<Self>),
    /// Anything else: `true`, `null`, an object.
    Other,
}

impl<'a> FrameFields<'a> {
    /// Parses a frame. `None` if it is no JSON object.
    pub(super) fn parse(frame: &'a str) -> Option<Self> {
        serde_json::from_str(frame).ok()
    }

    fn set(&mut self, param: Param, value: FrameValue<'a>) {
        match self.parameters.iter_mut().find(|(its, _)| *its == param) {
            Some((_, earlier)) => *earlier = value,
            None => self.parameters.push((param, value)),
        }
    }
}

impl<'de> Deserialize<'de> for FrameFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = FrameFields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = FrameFields::default();
        while let Some(name) = map.next_key()? {
            match name {
                Name::Call => fields.call = Some(map.next_value_seed(ValueSeed::Any)?),
                Name::Reference => fields.reference = Some(map.next_value_seed(ValueSeed::Any)?),
                Name::Param(param) => fields.set(param, map.next_value_seed(ValueSeed::Any)?),
                Name::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// Name of a field.
enum Name {
    Call,
    Reference,
    Param(Param),
    Unknown,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "call" => Name::Call,
            "ref" => Name::Reference,
            name => Param::from_name(name).map_or(Name::Unknown, Name::Param),
        })
    }
}

/// Values to keep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueSeed {
    /// Texts, numbers and lists of them.
    Any,
    /// Texts and numbers: the elements of a list.
    Scalar,
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = FrameValue<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = FrameValue<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(FrameValue::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(FrameValue::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(FrameValue::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(FrameValue::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).map_or(FrameValue::Other, FrameValue::Number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(FrameValue::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(FrameValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        if self == Self::Any {
            while values.len() < LIST_MAX
                && let Some(value) = list.next_element_seed(Self::Scalar)?
            {
                values.push(value);
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(if self == Self::Any { FrameValue::List(values) } else { FrameValue::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FrameValue::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_a_call_can_have_are_kept() {
        let many = vec!["0"; 1000].join(",");
        let frame = format!(
            r#"{{"call":"read","x":[{many}],"ref":1.5,"channel":["a","b\n",[{many}],{{"y":1}}],
               "from_id":[{many}],"epoch":"one","epoch":"two","message":null}}"#
        );
        let fields = FrameFields::parse(&frame).unwrap();
        let text = |text: &'static str| FrameValue::Text(text.into());
        assert_eq!(fields.call, Some(text("read")));
        assert_eq!(fields.reference, Some(FrameValue::Number(Number::from_f64(1.5).unwrap())));
        let [channel, from_id, epoch, message] = &*fields.parameters else { panic!() };
        let channels = vec![text("a"), text("b\n"), FrameValue::Other, FrameValue::Other];
        assert!(*channel == (Param::Channel, FrameValue::List(channels)));
        let FrameValue::List(ids) = &from_id.1 else { panic!() };
        assert_eq!(ids.len(), CHANNELS_PER_READ_MAX + 1);
        assert!(*epoch == (Param::Epoch, text("two")));
        assert!(*message == (Param::Message, FrameValue::Other));
        for frame in ["", "[]", "1", "{", r#"{"call":}"#, "{} {}", r#"{"x":[1,]}"#] {
            assert!(FrameFields::parse(frame).is_none(), "{frame}");
        }
    }
}
