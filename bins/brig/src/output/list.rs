//! Lists: a table with docker's columns, one JSON object a line, or a template of the caller's.

use anyhow::Result;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use super::template::Template;

/// How a list is to be printed.
#[derive(Debug, Default, Args)]
pub(crate) struct ListOptions {
    /// Output: json, table, 'table {{.Field}}…' or a template such as '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Only IDs or names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// A column: its header and the field of a row that it shows.
pub(crate) type Column = (&'static str, &'static str);

/// One line of a list: docker's field names and their texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(Map<String, Value>);

impl Row {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    pub(crate) fn with(mut self, field: &str, text: impl Into<String>) -> Self {
        self.0.insert(field.to_owned(), Value::String(text.into()));
        self
    }

    fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a list has to show.
#[derive(Debug)]
pub(crate) struct List<'a> {
    /// The table's columns.
    pub(crate) columns: &'a [Column],
    /// The field that `--quiet` prints.
    pub(crate) key: &'a str,
    /// Every field's header, for tables of the caller's choosing.
    pub(crate) headers: &'a [Column],
    /// The lines.
    pub(crate) rows: Vec<Row>,
}

impl List<'_> {
    /// Prints the list as asked.
    pub(crate) fn print(&self, options: &ListOptions) -> Result<()> {
        match options.format.as_deref() {
            None | Some("table") if options.quiet => {
                self.rows.iter().for_each(|row| println!("{}", row.text(self.key)));
            }
            None | Some("table") => println!("{}", self.table(self.columns)),
            Some("json") => {
                self.rows.iter().for_each(|row| println!("{}", Value::Object(row.0.clone())));
            }
            Some(format) => match format.strip_prefix("table ") {
                Some(columns) => println!("{}", self.custom_table(columns)?),
                None => {
                    let template = Template::parse(format)?;
                    for row in &self.rows {
                        println!("{}", template.render(&Value::Object(row.0.clone()))?);
                    }
                }
            },
        }
        Ok(())
    }

    /// The table as text, headers included.
    pub(crate) fn table(&self, columns: &[Column]) -> String {
        let headers = columns.iter().map(|(header, _)| (*header).to_owned()).collect();
        let cells = self
            .rows
            .iter()
            .map(|row| columns.iter().map(|(_, field)| row.text(field).to_owned()).collect())
            .collect();
        lay_out(headers, cells)
    }

    /// `table {{.ID}}\t{{.Names}}`: columns are separated by tabs, written as such or as `\t`.
    fn custom_table(&self, text: &str) -> Result<String> {
        let text = text.replace("\\t", "\t");
        let columns: Result<Vec<Template>> = text.split('\t').map(Template::parse).collect();
        let columns = columns?;
        let header = |template: &Template| {
            let field = template.first_field().unwrap_or_default();
            let known = self.headers.iter().chain(self.columns).find(|(_, name)| *name == field);
            known.map_or_else(|| field.to_uppercase(), |(header, _)| (*header).to_owned())
        };
        let headers = columns.iter().map(header).collect();
        let mut cells = Vec::new();
        for row in &self.rows {
            let value = Value::Object(row.0.clone());
            let line: Result<Vec<String>> =
                columns.iter().map(|template| template.render(&value)).collect();
            cells.push(line?);
        }
        Ok(lay_out(headers, cells))
    }
}

/// Columns side by side, three blanks apart, without lines or trailing blanks.
fn lay_out(headers: Vec<String>, cells: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers);
    for line in cells {
        table.add_row(line);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List<'static> {
        List {
            columns: &[("CONTAINER ID", "ID"), ("NAMES", "Names")],
            key: "ID",
            headers: &[],
            rows: vec![
                Row::new().with("ID", "abc").with("Names", "web"),
                Row::new().with("ID", "de").with("Names", "database"),
            ],
        }
    }

    #[test]
    fn tables_have_docker_s_layout() {
        let list = list();
        assert_eq!(
            list.table(list.columns),
            "CONTAINER ID   NAMES\nabc            web\nde             database"
        );
    }

    #[test]
    fn custom_tables_know_the_headers() {
        assert_eq!(
            list().custom_table("{{.Names}}\\t{{.ID}}").unwrap(),
            "NAMES      CONTAINER ID\nweb        abc\ndatabase   de"
        );
    }
}
