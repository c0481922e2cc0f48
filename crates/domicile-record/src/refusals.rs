//! What the audit chain says of scopes that one operation was refused: the first by name, the others together, all
//! in one go. Files and inputs name as many scopes as they like, and nobody vouches for what stands in them.

use domicile::audit::{Event, EventKind};
use domicile::{Action, Code, Region, Scope};

/// Refused scopes that are named.
const NAMED_MAX: usize = 100;

/// The refusals of one operation.
#[derive(Debug)]
pub(crate) struct Refusals<'a> {
    action: &'a Action,
    named: Vec<Event>,
    unnamed: Vec<Unnamed>,
}

/// Refused scopes that are not named.
#[derive(Debug)]
struct Unnamed {
    code: Code,
    scopes: u64,
    records: u64,
    bytes: u64,
}

impl<'a> Refusals<'a> {
    pub(crate) fn of(action: &'a Action) -> Self {
        Self { action, named: Vec::new(), unnamed: Vec::new() }
    }

    /// Adds a scope, with its home if it has one, and with how many records and octets were left out.
    pub(crate) fn add(&mut self, scope: &Scope, code: Code, home: Option<&Region>, records: u64, bytes: u64) {
        if self.named.len() < NAMED_MAX && !may_be_a_number(scope, code) {
            let event = self.refused(code, records, bytes).scope(scope);
            self.named.push(home.into_iter().fold(event, Event::region));
            return;
        }
        let known = self.unnamed.iter_mut().find(|unnamed| unnamed.code == code);
        match known {
            Some(unnamed) => {
                unnamed.scopes += 1;
                unnamed.records += records;
                unnamed.bytes += bytes;
            }
            None => self.unnamed.push(Unnamed { code, scopes: 1, records, bytes }),
        }
    }

    pub(crate) fn into_events(self) -> Vec<Event> {
        let unnamed = self.unnamed.iter().map(|unnamed| {
            let event = self.refused(unnamed.code, unnamed.records, unnamed.bytes);
            event.selected(format!("{} scopes that are not named", unnamed.scopes))
        });
        let unnamed: Vec<_> = unnamed.collect();
        self.named.into_iter().chain(unnamed).collect()
    }

    fn refused(&self, code: Code, records: u64, bytes: u64) -> Event {
        let event = Event::new(EventKind::Refuse).action(self.action).outcome(code);
        if records > 0 { event.counts(0, records, bytes) } else { event }
    }
}

/// Whether a scope of which nothing is known has a tenant of 7 to 15 digits, perhaps with signs between them: a wrong
/// column may have been taken for the tenant's.
pub(crate) fn may_be_a_number(scope: &Scope, code: Code) -> bool {
    let tenant = scope.tenant.as_str().bytes().filter(|octet| !b".-_".contains(octet));
    let (mut digits, mut only) = (0_usize, true);
    for octet in tenant {
        only &= octet.is_ascii_digit();
        digits += 1;
    }
    code == Code::HomeNone && only && (7..=15).contains(&digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domicile::RecordType;

    #[test]
    fn many_refusals_and_numbers_are_counted_and_not_named() {
        let mut refusals = Refusals::of(&Action::Seal);
        let scope = |tenant: &str| Scope::new(tenant, RecordType::VOICE).unwrap();
        for number in 0..250 {
            refusals.add(&scope(&format!("tenant-{number}")), Code::HomeRefused, None, 2, 10);
        }
        for number in ["493023125000", "4930.2312-5000"] {
            refusals.add(&scope(number), Code::HomeNone, None, 1, 5);
        }
        let events = refusals.into_events();
        assert_eq!(events.len(), NAMED_MAX + 2);
        let said = serde_json::to_string(&events[NAMED_MAX..]).unwrap();
        assert!(said.contains("150 scopes that are not named") && said.contains("\"records\":300"), "{said}");
        assert!(said.contains("2 scopes that are not named") && !said.contains("4930"), "{said}");
    }
}
