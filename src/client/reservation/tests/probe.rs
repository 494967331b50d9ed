//! Tests of the probe that `check` runs on the Reservation API.

use super::*;

async fn probe(status: u16, body: &'static str) -> Result<String, String> {
    let server = always(status, body).await;
    let said = client_of(&server, LONG).probe().await;
    let asked = server.asked();
    assert_eq!(asked[0].head.uri, "/internal/reservations/reservation-worker-check");
    assert_eq!(asked[0].head.method, "GET");
    said
}

#[tokio::test]
async fn any_answer_of_the_api_passes_the_probe() {
    assert!(probe(200, r#"{"status":"EXPIRED"}"#).await.is_ok());
    assert!(probe(404, API_ERROR).await.is_ok());
    assert!(probe(400, API_ERROR).await.is_ok());
}

#[tokio::test]
async fn other_answers_fail_the_probe_with_a_remedy() {
    for (status, body, said) in [
        (404, "<html>", "check the path of RESERVATION_API_BASE"),
        (200, "<html>", "check the path of RESERVATION_API_BASE"),
        (301, "", "redirects (HTTP 301"),
        (401, API_ERROR, "refuses this client"),
        (403, "", "refuses this client"),
        (500, API_ERROR, "not well"),
        (503, "", "not well"),
    ] {
        let error = probe(status, body).await.unwrap_err();
        assert!(error.contains(said), "{status}: {error}");
    }
    let nobody = client(&format!("http://{}", TestServer::nobody().await), LONG);
    assert!(nobody.probe().await.unwrap_err().contains("see that RESERVATION_API_BASE is right"));
}
