//! Tests of the questions.
