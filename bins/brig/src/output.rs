//! What commands print: lists as tables, JSON or templates, single objects, sizes and ages as people read them, progress.

pub(crate) mod human;
pub(crate) mod list;
pub(crate) mod progress;
pub(crate) mod template;

use anyhow::Result;
use serde_json::Value;

use template::Template;

/// Prints objects of `inspect`: a JSON array, or each through a template.
pub(crate) fn print_objects(objects: &[Value], format: Option<&str>) -> Result<()> {
    match format {
        None => println!("{}", indented(&Value::Array(objects.to_vec()))?),
        Some("json") => {
            for object in objects {
                println!("{object}");
            }
        }
        Some(text) => {
            let template = Template::parse(text)?;
            for object in objects {
                println!("{}", template.render(object)?);
            }
        }
    }
    Ok(())
}

/// JSON with docker's indentation of four blanks.
fn indented(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    Ok(String::from_utf8(bytes)?)
}
