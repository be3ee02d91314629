//! `spec`
