//! What is to be exchanged over a connection, and where the other end may be for it.

use std::fmt;

use domicile::processing::{Processing, Where};
use domicile::{Code, Domicile, Error, Place, Result, Scope};

/// What is to be exchanged, with the rule that says where the other end may be.
///
/// ```
/// use domicile::{Place, processing::Processing};
/// use domicile_transport::Exchange;
///
/// # let place = |region: &str, jurisdiction: &str| Place { region: region.parse().unwrap(), jurisdiction: jurisdiction.parse().unwrap() };
/// let (frankfurt, dublin) = (place("eu-central-1", "EU"), place("eu-west-1", "EU"));
/// let usual = Processing::default();
///
/// // Segments go home, and nowhere else in the same jurisdiction either.
/// assert!(Exchange::home(&frankfurt).check(&frankfurt, &usual).is_ok());
/// assert!(Exchange::home(&frankfurt).check(&dublin, &usual).is_err());
/// // Records are processed in their jurisdiction.
/// assert!(Exchange::processing(&frankfurt).check(&dublin, &usual).is_ok());
/// assert!(Exchange::processing(&frankfurt).check(&place("us-east-1", "US"), &usual).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    what: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// The home itself.
    Home(Place),
    /// Where records of this home may be processed, as the configuration says at the time.
    Processing(Place),
    /// These places.
    Places(Vec<Where>),
    /// Every region that somebody vouches for.
    Anywhere,
}

impl Exchange {
    /// What goes home, such as finished segments: the other end is in the home region.
    #[must_use]
    pub fn home(home: &Place) -> Self {
        Self { what: format!("what is at home in {home}"), rule: Rule::Home(home.clone()) }
    }

    /// Records of a home, to be processed: the other end is where the configuration says that records of its jurisdiction
    /// may be processed, which is that jurisdiction if it says nothing. A connection is judged anew when that changes.
    #[must_use]
    pub fn processing(home: &Place) -> Self {
        Self { what: format!("records of {home}"), rule: Rule::Processing(home.clone()) }
    }

    /// Records of a scope, to be processed: the other end is where its home said of this scope that its records may be
    /// processed, or else as [`processing`](Self::processing). What the home said is asked now, and not again.
    ///
    /// # Errors
    /// Those of [`Domicile::home`] and [`Domicile::processing_places`].
    pub async fn of_scope(domicile: &Domicile, scope: &Scope) -> Result<Self> {
        let home = domicile.home(scope).await?;
        let places = domicile.processing_places(home.place(), scope).await?;
        Ok(Self::among(&format!("records of {scope}, at home in {}", home.place()), places))
    }

    /// Anything else, in these places. `what` is shown in errors and logs; it names no tenant that they may not show.
    #[must_use]
    pub fn among(what: &str, places: Vec<Where>) -> Self {
        Self { what: what.to_owned(), rule: Rule::Places(places) }
    }

    /// What may come from anywhere and goes nowhere, such as sealed segments that their home receives: the other end is in
    /// any region that the configuration has trust anchors for.
    #[must_use]
    pub fn from_anywhere(what: &str) -> Self {
        Self { what: what.to_owned(), rule: Rule::Anywhere }
    }

    /// Whether the other end may be there.
    ///
    /// # Errors
    /// [`PeerRefused`](Code::PeerRefused) with what was to be exchanged, the place and the rule.
    pub fn check(&self, peer: &Place, processing: &Processing) -> Result<()> {
        let (name, places) = match &self.rule {
            Rule::Anywhere => return Ok(()),
            Rule::Home(home) => ("home", vec![Where::Region(home.region.clone())]),
            Rule::Processing(home) => ("processing", processing.of(home)),
            Rule::Places(places) => ("places", places.clone()),
        };
        if places.iter().any(|place| place.holds(peer)) {
            return Ok(());
        }
        let quoted: Vec<_> = places.iter().map(|place| format!("\"{place}\"")).collect();
        Err(Error::new(
            Code::PeerRefused,
            format!("the other end is in {peer}, where {} may not be", self.what),
        )
        .rule(format!("{name} = [{}]", quoted.join(", ")))
        .advise("connect to a host in one of these places"))
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, jurisdiction: &str) -> Place {
        Place { region: region.parse().unwrap(), jurisdiction: jurisdiction.parse().unwrap() }
    }

    #[test]
    fn a_refusal_names_what_where_and_the_rule() {
        let (home, there) = (place("eu-central-1", "EU"), place("us-east-1", "US"));
        let refusal = Exchange::processing(&home).check(&there, &Processing::default()).unwrap_err();
        assert_eq!(refusal.code(), Code::PeerRefused);
        assert_eq!(
            refusal.what(),
            "the other end is in us-east-1 (US), where records of eu-central-1 (EU) may not be"
        );
        assert_eq!(refusal.broken_rule(), Some("processing = [\"EU\"]"));
        let refusal =
            Exchange::home(&home).check(&place("eu-west-1", "EU"), &Processing::default()).unwrap_err();
        assert_eq!(refusal.broken_rule(), Some("home = [\"eu-central-1\"]"));
    }

    #[test]
    fn processing_goes_by_the_configuration_of_the_time() {
        let (home, there) = (place("eu-central-1", "EU"), place("gb-1", "GB"));
        let exchange = Exchange::processing(&home);
        assert!(exchange.check(&there, &Processing::default()).is_err());
        let mut wider = Processing::default();
        wider.add("EU".parse().unwrap(), vec!["EU".parse().unwrap(), "gb-1".parse().unwrap()]).unwrap();
        exchange.check(&there, &wider).unwrap();
        Exchange::among("logs", vec!["GB".parse().unwrap()]).check(&there, &wider).unwrap();
        assert!(Exchange::among("nothing", vec![]).check(&there, &wider).is_err());
        Exchange::from_anywhere("sealed segments").check(&there, &wider).unwrap();
    }
}
