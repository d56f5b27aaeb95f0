//! How counters are declared: a plain struct of documented `u64`, copied out whole, which can name
//! its members; and an enum of reasons with one counter each.

/// Declares a struct of counters, with `each` to walk their names and values.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// Calls `visit` with each counter's name and value.
            pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($field), self.$field);)*
            }
        }
    };
}

/// Declares an enum of reasons and a struct with one counter for each.
macro_rules! reasons {
    (
        $(#[$meta:meta])* $name:ident, $counts:ident
        { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The reason's name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }

        #[doc = concat!("One counter for each [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $counts([u64; $name::ALL.len()]);

        impl Default for $counts {
            fn default() -> $counts {
                $counts([0; $name::ALL.len()])
            }
        }

        impl $counts {
            /// Counts one.
            pub(crate) fn add(&mut self, reason: $name) {
                self.0[reason as usize] += 1;
            }

            /// How often it happened.
            #[must_use]
            pub const fn get(&self, reason: $name) -> u64 {
                self.0[reason as usize]
            }

            /// All reasons together.
            #[must_use]
            pub fn sum(&self) -> u64 {
                self.0.iter().sum()
            }

            /// Calls `visit` with each reason's name and count.
            pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                for reason in $name::ALL {
                    visit(reason.name(), self.get(*reason));
                }
            }
        }
    };
}

pub(crate) use {counters, reasons};
