//! Lists of Kubernetes objects, page by page.
//!
//! Each page is a request of its own, so that a caller can bound its time and drop what it does not need before it reads
//! the next one. A continue token that has expired is an error: nothing may be concluded from a part of a list.

use std::fmt::Debug;
use std::future::Future;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{Api, ListParams, ObjectList};
use serde::de::DeserializeOwned;

/// One page of a list.
pub trait Page {
    /// Metadata of the list, which names the next page.
    fn metadata(&self) -> &ListMeta;
}

impl<K: Clone> Page for ObjectList<K> {
    fn metadata(&self) -> &ListMeta {
        &self.metadata
    }
}

/// Where in a list the next page starts.
#[derive(Clone, Debug)]
pub struct Pages {
    /// `None` once the list is complete.
    next: Option<ListParams>,
}

impl Pages {
    /// A list with this selection, in pages of up to `page_size` objects.
    pub fn new(selection: ListParams, page_size: u32) -> Self {
        Self { next: Some(selection.limit(page_size)) }
    }

    /// Reads the next page; `None` once the list is complete. After an error, the same page can be requested again.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn next<K: Clone + Debug + DeserializeOwned>(
        &mut self,
        api: &Api<K>,
    ) -> kube::Result<Option<ObjectList<K>>> {
        self.next_with(async |parameters| api.list(&parameters).await).await
    }

    /// Reads the next page with a request of one's own, for example for a part of each object only.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn next_with<P: Page, F: Future<Output = kube::Result<P>>>(
        &mut self,
        request: impl FnOnce(ListParams) -> F,
    ) -> kube::Result<Option<P>> {
        let Some(parameters) = self.next.clone() else { return Ok(None) };
        let page = request(parameters).await?;
        let token = page.metadata().continue_.clone().filter(|token| !token.is_empty());
        self.next = token.and_then(|token| Some(ListParams { continue_token: Some(token), ..self.next.take()? }));
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    /// Compiles only if a page can be requested on another thread.
    #[allow(dead_code)]
    fn next_is_send<'a>(pages: &'a mut Pages, api: &'a Api<ConfigMap>) -> impl Send + 'a {
        pages.next(api)
    }

    struct Numbers(Vec<u32>, ListMeta);

    impl Page for Numbers {
        fn metadata(&self) -> &ListMeta {
            &self.1
        }
    }

    fn page(numbers: &[u32], token: Option<&str>) -> Numbers {
        Numbers(numbers.to_vec(), ListMeta { continue_: token.map(str::to_owned), ..ListMeta::default() })
    }

    #[tokio::test]
    async fn every_page_is_requested_with_the_selection_and_the_previous_pages_token() {
        let mut pages = Pages::new(ListParams::default().labels("a=b"), 2);
        let (mut numbers, mut requests) = (Vec::new(), Vec::new());
        let answers = [page(&[1, 2], Some("next")), page(&[3, 4], Some("last")), page(&[5], Some(""))];
        for answer in answers {
            let read = pages.next_with(async |parameters: ListParams| {
                requests.push((parameters.label_selector, parameters.limit, parameters.continue_token));
                Ok(answer)
            });
            numbers.extend(read.await.unwrap().unwrap().0);
        }
        let unused = async |_| -> kube::Result<Numbers> { panic!("the list is complete") };
        assert!(pages.next_with(unused).await.unwrap().is_none());
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        let tokens = [None, Some("next"), Some("last")];
        assert_eq!(requests, tokens.map(|token| (Some("a=b".to_owned()), Some(2), token.map(str::to_owned))));
    }

    #[tokio::test]
    async fn a_failed_page_can_be_requested_again() {
        let mut pages = Pages::new(ListParams::default(), 2);
        pages.next_with(async |_| Ok(page(&[1, 2], Some("next")))).await.unwrap();
        let failed = pages.next_with(async |_| Err::<Numbers, _>(kube::Error::LinesCodecMaxLineLengthExceeded));
        assert!(failed.await.is_err());
        let again = pages.next_with(async |parameters: ListParams| {
            assert_eq!(parameters.continue_token.as_deref(), Some("next"));
            Ok(page(&[3], None))
        });
        assert_eq!(again.await.unwrap().unwrap().0, [3]);
        assert!(pages.next_with(async |_| Ok(page(&[], None))).await.unwrap().is_none());
    }
}
