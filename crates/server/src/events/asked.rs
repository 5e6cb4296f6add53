//! What a reader of events asks for, out of the query of its URL.

use std::time::Duration;

/// Which events, how many, and whether to wait for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Events with greater numbers than this.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// If there are none, how long to wait for one.
    pub wait: Duration,
}

/// The most events of one answer, and how many there are when the reader does not say.
const LIMIT: (u64, usize) = (1000, 100);

/// Longer than this proxies do not wait either.
const WAIT_S: u64 = 60;

impl Asked {
    /// From `after=SEQ&limit=N&wait=SECONDS`, each of which may be left out. Errors say which is wrong, and what it takes.
    pub fn parse(query: &str) -> Result<Asked, String> {
        let mut asked = Asked { after: 0, limit: LIMIT.1, wait: Duration::ZERO };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number =
                value.parse::<u64>().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
            let within = |least: u64, most: u64| number.filter(|number| (least..=most).contains(number));
            let wrong = |takes: String| format!("query parameter `{key}` takes {takes}");
            match key {
                "after" => {
                    asked.after =
                        number.ok_or_else(|| wrong("the number of an event, 0 for the first".into()))?;
                }
                "limit" => {
                    let limit = within(1, LIMIT.0).and_then(|limit| usize::try_from(limit).ok());
                    asked.limit =
                        limit.ok_or_else(|| wrong(format!("a whole number from 1 to {}", LIMIT.0)))?;
                }
                "wait" => {
                    let wait =
                        within(0, WAIT_S).ok_or_else(|| wrong(format!("whole seconds, at most {WAIT_S}")))?;
                    asked.wait = Duration::from_secs(wait);
                }
                _ => {
                    let key: String = key.chars().take(32).collect();
                    return Err(format!(
                        "query parameter `{key}` is unknown; there are `after`, `limit` and `wait`"
                    ));
                }
            }
            if seen.contains(&key) {
                return Err(format!("query parameter `{key}` is given twice"));
            }
            seen.push(key);
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_all_or_nothing() {
        let nothing = Asked { after: 0, limit: 100, wait: Duration::ZERO };
        assert_eq!(Asked::parse(""), Ok(nothing));
        let all = Asked { after: 7, limit: 1000, wait: Duration::from_secs(5) };
        assert_eq!(Asked::parse("wait=5&after=7&limit=1000"), Ok(all));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (query, word) in [
            ("after=-1", "`after`"),
            ("after=+1", "`after`"),
            ("after=", "`after`"),
            ("after", "`after`"),
            ("limit=0", "`limit`"),
            ("limit=1001", "1 to 1000"),
            ("wait=61", "at most 60"),
            ("wait=1.5", "`wait`"),
            ("since=1", "`since` is unknown"),
            ("after=1&after=2", "twice"),
        ] {
            let why = Asked::parse(query).unwrap_err();
            assert!(why.contains(word), "{query}: {why}");
        }
    }
}
