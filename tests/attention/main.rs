//! Every variant against its naive definition and against what must hold of it, on the CPU interpreter and on the GPU.
//!
//! The checks are written once and named after the variants that they are run for.

#[path = "../common/backends.rs"]
mod backends;
#[path = "../common/mod.rs"]
mod common;

mod approximations;
mod case;
mod close;
mod decisions;
mod device;
mod forms;
mod invariants;
mod limits;
mod limits_of_choice;
mod limits_of_memory;
mod losses;
mod memory;
mod patterns;
mod spans;
mod values;

macro_rules! tests {
    ($($id:ident)*) => {
        $(mod $id {
            const ID: &str = stringify!($id);

            #[test]
            fn forward_equals_the_definition() {
                crate::values::forward(ID);
            }
            #[test]
            fn forward_equals_the_definition_at_1000() {
                crate::values::forward_long(ID);
            }
            #[test]
            fn gradients_equal_the_definition() {
                crate::values::gradients(ID);
            }
            #[test]
            fn gradients_equal_the_definition_at_1000() {
                crate::values::gradients_long(ID);
            }
            #[test]
            fn padding_and_other_key_lengths_equal_the_definition() {
                crate::values::ragged(ID);
            }
            #[test]
            fn effective_matrix_is_what_the_values_are_mixed_with() {
                crate::invariants::effective_matrix(ID);
            }
            #[test]
            fn forms_of_its_pattern_equal_the_definition() {
                crate::forms::equal_the_definition(ID);
            }
            #[test]
            fn its_own_loss_equals_the_definition() {
                crate::losses::equal_their_definition(ID);
            }
            #[test]
            fn reads_only_what_it_may() {
                crate::invariants::reads_only_what_it_may(ID);
            }
            #[test]
            fn padded_tokens_change_nothing() {
                crate::invariants::padded_tokens_change_nothing(ID);
            }
            #[test]
            fn batches_and_heads_are_independent() {
                crate::invariants::batches_and_heads_are_independent(ID);
            }
            #[test]
            fn repeats_bit_for_bit() {
                crate::invariants::repeats_bit_for_bit(ID);
            }
            #[test]
            fn memory_grows_as_stated() {
                crate::memory::grows_as_stated(ID);
            }
        })*
    };
}

attention_lab::for_each_variant!(tests);
