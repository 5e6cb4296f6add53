//! How requests are divided among tenants.

use std::fmt;
use std::str::FromStr;

/// Who is asked how often.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Popularity {
    /// All alike.
    Uniform,
    /// The n-th tenant is asked in proportion to 1/nˢ: a few are popular and most are hardly asked, as in the traces of Azure's
    /// functions. The number is s.
    Zipf(f64),
}

impl Popularity {
    /// Each tenant's part; they add up to one.
    pub fn weights(self, tenants: usize) -> Vec<f64> {
        let weight = |tenant: usize| match self {
            Popularity::Uniform => 1.0,
            Popularity::Zipf(exponent) => (tenant as f64 + 1.0).powf(-exponent),
        };
        let total: f64 = (0..tenants).map(weight).sum();
        (0..tenants).map(|tenant| weight(tenant) / total).collect()
    }
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(word: &str) -> Result<Popularity, String> {
        match word {
            "uniform" => Ok(Popularity::Uniform),
            "zipf" => Ok(Popularity::Zipf(1.0)),
            _ => {
                let exponent = word.strip_prefix("zipf:").and_then(|exponent| exponent.parse().ok());
                let exponent = exponent.filter(|exponent| (0.0..=10.0).contains(exponent));
                exponent.map(Popularity::Zipf).ok_or_else(|| {
                    format!("`{word}` is no popularity; choose uniform, zipf, or zipf:S with an exponent from 0 to 10")
                })
            }
        }
    }
}

impl fmt::Display for Popularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Popularity::Uniform => f.write_str("uniform"),
            Popularity::Zipf(exponent) => write!(f, "zipf:{exponent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_one_and_fall_as_the_law_says() {
        assert_eq!(Popularity::Uniform.weights(4), [0.25; 4]);
        let zipf = Popularity::Zipf(1.0).weights(100);
        assert!((zipf.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((zipf[0] / zipf[9] - 10.0).abs() < 1e-9);
        assert_eq!("zipf".parse(), Ok(Popularity::Zipf(1.0)));
        assert!("zipf:-1".parse::<Popularity>().unwrap_err().contains("zipf:S"));
    }
}
