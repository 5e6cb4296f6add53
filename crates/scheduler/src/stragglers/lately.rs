//! How much longer than usual launches took of late, with a tenant aboard and without.
//!
//! ```text
//!   launches   +8 % [a b c]   +7 % [a b]   +9 % [a c]   +8 % [a b c]      without c: +7 %, so c explains a hundredth of its +8 %
//!                                                                         without a: none, so a may explain all of it
//! ```
//! A card that lowers its clock under load slows every launch, whoever is aboard. What launches without a tenant suffer, too, is not held against it; only who was aboard
//! of all of them cannot be told apart from the device.
//!
//! Two sums that older launches count ever less in: of all launches, and of each tenant's. Their difference is of those without it, so a launch costs a look at each of its lanes.

/// What a launch before counts of the one behind it: most of a sum is of the last 32.
const KEPT: f64 = 1.0 - 1.0 / 32.0;

/// The launches without a tenant are judged as if so many more had taken what is usual.
const AS_USUAL: f64 = 2.0;

/// The most that a launch counts, as a logarithm: a hiccup says nothing of the launches around it.
const MOST: f64 = 0.25;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    /// Launches taken in, also those before a tenant's last one.
    number: u64,
    launches: f64,
    longer: f64,
}

impl Lately {
    fn fade(&mut self, number: u64) {
        let since = i32::try_from(number.saturating_sub(self.number)).unwrap_or(i32::MAX);
        let kept = KEPT.powi(since);
        (self.launches, self.longer, self.number) = (self.launches * kept, self.longer * kept, number);
    }

    /// Takes in the launch of a number that was so much longer than usual, as a logarithm.
    fn take(&mut self, number: u64, log_ratio: f64) {
        self.fade(number);
        self.launches += 1.0;
        self.longer += log_ratio.clamp(-MOST, MOST);
    }

    /// One launch more of all.
    pub(super) fn one_more(&mut self, log_ratio: f64) {
        self.take(self.number + 1, log_ratio);
    }

    /// A launch of these is one of a tenant's, too. Says how much longer than usual those of late were without it.
    pub(super) fn without(&self, tenant: &mut Lately, log_ratio: f64) -> f64 {
        tenant.take(self.number, log_ratio);
        let launches = (self.launches - tenant.launches).max(0.0);
        (self.longer - tenant.longer) / (launches + AS_USUAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_launches_suffer_without_a_tenant_is_known_unless_it_was_in_all_of_them() {
        let (mut all, mut always, mut half) = (Lately::default(), Lately::default(), Lately::default());
        let (mut without_always, mut without_half) = (0.0, 0.0);
        for launch in 0..100 {
            all.one_more(0.1);
            without_always = all.without(&mut always, 0.1);
            if launch % 2 == 0 {
                without_half = all.without(&mut half, 0.1);
            }
        }
        assert!(without_always.abs() < 1e-9, "{without_always}");
        assert!((0.08..0.1).contains(&without_half), "{without_half}");
    }

    #[test]
    fn who_is_slow_explains_its_launches_and_a_hiccup_is_soon_forgotten() {
        let (mut all, mut slow) = (Lately::default(), Lately::default());
        all.one_more(3.0);
        for launch in 0..200 {
            let log_ratio = if launch % 2 == 0 { 0.3 } else { 0.0 };
            all.one_more(log_ratio);
            if launch % 2 == 0 {
                let without = all.without(&mut slow, log_ratio);
                assert!(launch < 64 || without < 0.01, "{without} after {launch}");
            }
        }
    }
}
