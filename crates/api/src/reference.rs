//! The reference of the kinds for people, in Markdown, from the custom resource definitions.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::crds;

/// A page for each kind, with the name of its file under `docs/reference/`.
pub fn pages() -> Vec<(String, String)> {
    crds::all().into_iter().map(|(file, crd)| (file.replace(".yaml", ".md"), page(file, &crd))).collect()
}

fn page(file: &str, crd: &CustomResourceDefinition) -> String {
    let spec = &crd.spec;
    let mut page = format!(
        "# {}\n\n<!-- Made by `ensign crds --reference`; don't edit it by hand. -->\n\n{}, short name `{}`, API group `{}`. The definition: [{file}](../../crds/{file}).\n",
        spec.names.kind,
        if spec.scope == "Namespaced" { "Namespaced" } else { "Of the whole cluster" },
        spec.names.short_names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("`, `"),
        spec.group,
    );
    for version in &spec.versions {
        let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else {
            continue;
        };
        for (name, part) in schema.properties.iter().flatten() {
            if name != "spec" && name != "status" {
                continue;
            }
            let said = part.description.as_deref().map(cell).unwrap_or_default();
            // Writing to a String does not fail.
            let _ = write!(page, "\n## {}: {name}\n\n{said}\n\n{HEAD}", version.name);
            let mut rules = messages(part, name);
            fields(&mut page, &mut rules, name, part);
            if !rules.is_empty() {
                page.push_str("\nRefused at `kubectl apply`, with these words:\n\n");
                for (path, words) in &rules {
                    let _ = writeln!(page, "- `{path}`: {words}");
                }
            }
        }
        if let Some(columns) = &version.additional_printer_columns {
            page.push_str("\n## Columns of `kubectl get`\n\n| Column | From | With |\n|---|---|---|\n");
            for column in columns {
                let wide = if column.priority.unwrap_or_default() > 0 { "`-o wide`" } else { "" };
                let _ = writeln!(page, "| {} | `{}` | {wide} |", column.name, column.json_path.replace('|', "\\|"));
            }
        }
    }
    page
}

const HEAD: &str = "| Field | Type | Default | Says |\n|---|---|---|---|\n";

type Rules = Vec<(String, String)>;

fn fields(page: &mut String, rules: &mut Rules, path: &str, schema: &JSONSchemaProps) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let required = schema.required.iter().flatten().any(|required| required == name);
        let default = match &field.default {
            Some(value) => format!("`{}`", cell(&value.0.to_string())),
            None if required => "required".to_owned(),
            None => String::new(),
        };
        let said = field.description.as_deref().map(cell).unwrap_or_default();
        let _ = writeln!(page, "| `{path}` | {} | {default} | {said} |", kind(field));
        // The fields of a condition are Kubernetes' own.
        if name != "conditions" {
            below(page, rules, &path, field);
        }
    }
}

fn below(page: &mut String, rules: &mut Rules, path: &str, field: &JSONSchemaProps) {
    rules.extend(messages(field, path));
    fields(page, rules, path, field);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &field.items {
        below(page, rules, &format!("{path}[]"), items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &field.additional_properties {
        below(page, rules, &format!("{path}.*"), values);
    }
}

/// What the rules of this schema say when they refuse.
fn messages(schema: &JSONSchemaProps, path: &str) -> Rules {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    rules.map(|rule| (path.to_owned(), cell(rule.message.as_ref().unwrap_or(&rule.rule)))).collect()
}

/// The type with its bounds, as people say it.
fn kind(schema: &JSONSchemaProps) -> String {
    let name = schema.type_.as_deref().unwrap_or("any");
    let mut text = match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => {
            format!("list of {}", items.type_.as_deref().unwrap_or("any"))
        }
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => {
            format!("map of {}", values.type_.as_deref().unwrap_or("any"))
        }
        _ => schema.format.as_deref().filter(|format| *format == "date-time").unwrap_or(name).to_owned(),
    };
    if let Some(choices) = &schema.enum_ {
        let choices: Vec<String> =
            choices.iter().map(|choice| format!("`{}`", choice.0.as_str().unwrap_or("?"))).collect();
        text = choices.join(", ");
    }
    let bounds = [
        range(schema.minimum, schema.maximum, ""),
        range(whole(schema.min_length), whole(schema.max_length), " characters"),
        range(whole(schema.min_items), whole(schema.max_items), " entries"),
        range(whole(schema.min_properties), whole(schema.max_properties), " keys"),
    ];
    for bound in bounds.into_iter().flatten() {
        let _ = write!(text, ", {bound}");
    }
    text
}

/// Lengths and counts as numbers that can be shown like any other.
fn whole(bound: Option<i64>) -> Option<f64> {
    bound.and_then(|bound| u32::try_from(bound).ok()).map(f64::from)
}

fn range(least: Option<f64>, most: Option<f64>, of: &str) -> Option<String> {
    match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{of}")),
        (Some(least), None) => Some(format!("at least {least}{of}")),
        (None, Some(most)) => Some(format!("at most {most}{of}")),
        (None, None) => None,
    }
}

/// Text that can stand in a cell of a table: on one line, and nothing in it is markup.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_with_its_fields_bounds_and_refusals() {
        let pages = pages();
        assert_eq!(pages.len(), crds::all().len());
        let (_, identity) = pages.iter().find(|(name, _)| name == "managedidentities.md").unwrap();
        for part in [
            "# ManagedIdentity\n",
            "Of the whole cluster, short name `mi`",
            "| `spec.allowedSubjects[].serviceAccounts` | list of string, 1 to 64 entries | required |",
            "| `spec.existing.credentialPolicy` | `Manage`, `Observe` | `\"Manage\"` |",
            "| `spec.maxTokenExpirationSeconds` | integer, 3600 to 86400 | `86400` |",
            "is immutable: create a new ManagedIdentity beside this one",
            "| `status.conditions` | list of object |",
            "| Ready |",
        ] {
            assert!(identity.contains(part), "{part:?} is missing in\n{identity}");
        }
        assert!(!identity.contains("status.conditions[]"), "the fields of a condition are Kubernetes' own");
    }

    #[test]
    fn no_cell_breaks_its_table() {
        assert_eq!(cell("one\n  two | <guid>"), "one two \\| &lt;guid>");
    }
}
