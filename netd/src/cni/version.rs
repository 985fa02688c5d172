//! The versions of the specification.

use super::error::{Code, Error};

/// A version of the specification; the order is that of their release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SpecVersion {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl SpecVersion {
    pub(super) const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(super) const LATEST: Self = Self::V1_1_0;

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version of a configuration; one that names none is of the first.
    pub(super) fn of_config(text: Option<&str>) -> Result<Self, Error> {
        let text = text.filter(|text| !text.is_empty()).unwrap_or(Self::V0_1_0.text());
        Self::ALL.into_iter().find(|version| version.text() == text).ok_or_else(|| {
            Error::new(Code::IncompatibleVersion, "incompatible CNI versions")
                .with(format!("config is {text:?}, plugin supports {:?}", Self::ALL.map(Self::text)))
        })
    }
}
