//! Parameters, lists whose length is bounded while they are read, and objects that are nothing but objects.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A parameter's value: the protocol knows strings, numbers and booleans.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, number or boolean")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Whole(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.into()))
            }
        }
        from.deserialize_any(Any)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{:?}", text.chars().take(32).collect::<String>()),
        }
    }
}

/// Parameters by name, in their order. Names that we do not know are let pass, as the protocol asks.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Parameters(Vec<(String, Value)>);

impl Parameters {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A whole number, `None` when absent. The error is a sentence.
    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Whole(value)) => Ok(Some(*value)),
            Some(other) => {
                Err(format!("parameter `{name}` is {other}; it takes a whole number, not negative"))
            }
        }
    }

    /// A boolean, `None` when absent. The error is a sentence.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(format!("parameter `{name}` is {other}; it takes true or false")),
        }
    }

    /// Whether there is a parameter of this name that asks for something: 0, false and "" do not.
    pub(super) fn asks(&self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Whole(0) | Value::Bool(false)) => false,
            Some(Value::Text(text)) => !text.is_empty(),
            Some(_) => true,
        }
    }
}

/// More parameters than this are a mistake or an attack.
const MOST_PARAMETERS: usize = 64;

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Parameters, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Parameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut all = Parameters::default();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if all.0.len() == MOST_PARAMETERS {
                        return Err(A::Error::custom(format_args!("more than {MOST_PARAMETERS} parameters")));
                    }
                    if all.get(&name).is_some() {
                        return Err(A::Error::custom("a parameter is given twice"));
                    }
                    all.0.push((name, value));
                }
                Ok(all)
            }
        }
        from.deserialize_map(All)
    }
}

/// A list of at most `MOST` elements: a longer one is refused before it takes memory.
#[derive(Debug)]
pub(super) struct UpTo<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for UpTo<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<UpTo<T, MOST>, D::Error> {
        struct All<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for All<T, MOST> {
            type Value = UpTo<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UpTo<T, MOST>, A::Error> {
                let mut all = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if all.len() == MOST {
                        return Err(A::Error::custom(format_args!("a list has more than {MOST} elements")));
                    }
                    all.push(element);
                }
                Ok(UpTo(all))
            }
        }
        from.deserialize_seq(All(PhantomData))
    }
}

/// What is written as a JSON object. Serde would read a list as well, whose elements it takes for the fields in the order of our code.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object<T>, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}
