//! Lists of ARM, page by page.

use azure_core::http::RawResponse;
use serde::Deserialize;
use url::Url;

use super::error::ArmErrorCause;
use super::response::{decode, unreadable};

/// A page of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    pub(super) value: Vec<T>,
    #[serde(default = "Option::default")]
    next_link: Option<String>,
}

/// Where in a list the next page starts.
pub(super) struct Pages {
    /// `None` once the list is complete.
    next: Option<Url>,
    /// How many pages have been requested.
    requested: u32,
    limit: u32,
}

impl Pages {
    /// A list whose first page is at `first`. More than `limit` pages are an error: no list of its kind is that long.
    pub(super) fn new(first: Url, limit: u32) -> Self {
        Self { next: Some(first), requested: 0, limit }
    }

    /// The number and the URL of the next page to request; `None` once the list is complete.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Url)>, ArmErrorCause> {
        let Some(url) = self.next.clone() else { return Ok(None) };
        if self.requested == self.limit {
            return Err(unreadable(&format!("more than {} pages", self.limit)));
        }
        self.requested += 1;
        Ok(Some((self.requested - 1, url)))
    }

    /// What is on the requested page. The link to the next one is opaque, but it has to lead to ARM, because the request
    /// carries a token.
    pub(super) fn read<'de, T: Deserialize<'de>>(
        &mut self,
        response: &'de RawResponse,
    ) -> Result<Vec<T>, ArmErrorCause> {
        let Page { value, next_link } = decode(response)?;
        let requested = self.next.take();
        if let Some(link) = next_link.filter(|link| !link.is_empty()) {
            let leads_to_arm = |next: &Url| requested.as_ref().is_some_and(|url| url.origin() == next.origin());
            let next = Url::parse(&link).ok().filter(leads_to_arm);
            self.next = Some(next.ok_or_else(|| unreadable("nextLink does not lead to ARM"))?);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use azure_core::http::StatusCode;
    use azure_core::http::headers::Headers;

    use super::*;

    const ARM: &str = "https://arm.example/";

    fn response(body: &str) -> RawResponse {
        RawResponse::from_bytes(StatusCode::Ok, Headers::new(), body.to_owned())
    }

    fn pages(limit: u32) -> Pages {
        Pages::new(ARM.parse().unwrap(), limit)
    }

    fn url(pages: &mut Pages) -> Option<(u32, String)> {
        pages.next().unwrap().map(|(number, url)| (number, url.to_string()))
    }

    #[test]
    fn every_page_is_read_up_to_one_without_a_link() {
        let mut pages = pages(3);
        assert_eq!(url(&mut pages), Some((0, ARM.to_owned())));
        let link = "https://arm.example/list?$skiptoken=x";
        let first = response(&format!(r#"{{"value": [1, 2], "nextLink": "{link}"}}"#));
        assert_eq!(pages.read::<u32>(&first).unwrap(), [1, 2]);
        assert_eq!(url(&mut pages), Some((1, link.to_owned())));
        assert_eq!(pages.read::<u32>(&response(r#"{"value": [3], "nextLink": ""}"#)).unwrap(), [3]);
        assert_eq!(url(&mut pages), None);
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_an_error() {
        for link in ["https://elsewhere.example/", "http://arm.example/", "https://arm.example:444/", "/relative"] {
            let mut pages = pages(3);
            url(&mut pages);
            let page = response(&format!(r#"{{"value": [], "nextLink": "{link}"}}"#));
            assert!(matches!(pages.read::<u32>(&page), Err(ArmErrorCause::Unreadable(_))), "{link}");
        }
    }

    #[test]
    fn a_list_with_too_many_pages_is_an_error() {
        let mut pages = pages(2);
        for _ in 0..2 {
            url(&mut pages);
            pages.read::<u32>(&response(r#"{"value": [], "nextLink": "https://arm.example/"}"#)).unwrap();
        }
        assert!(matches!(pages.next(), Err(ArmErrorCause::Unreadable(_))));
    }
}
