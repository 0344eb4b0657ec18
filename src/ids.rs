//! Enums whose values have ids, as in permalinks and files.

/// Declares an enum whose values have ids as in permalinks.
macro_rules! ids {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $value:ident = $id:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $id)] $value),+
        }

        impl $name {
            /// Every value, in the order of menus.
            pub const ALL: &[$name] = &[$($name::$value),+];

            /// Their ids, in the same order.
            #[allow(dead_code, reason = "few menus are written from it")]
            pub const IDS: &[&str] = &[$($id),+];

            /// The id in permalinks and files.
            pub fn id(self) -> &'static str {
                match self { $($name::$value => $id),+ }
            }

            /// The value with this id.
            pub fn from_id(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|x| x.id() == id)
            }
        }
    };
}

pub(crate) use ids;
