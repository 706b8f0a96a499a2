//! The reviews in the fuzzing corpus.

use std::path::Path;

use super::*;

#[tokio::test]
async fn every_review_of_the_corpus_is_valid_and_gets_a_response() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/review");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let body = std::fs::read(&path).unwrap();
            let (status, text) = post(resolved_app(), "application/json", body).await;
            assert_eq!(status, StatusCode::OK, "{}: {text}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "the corpus is empty");
}
