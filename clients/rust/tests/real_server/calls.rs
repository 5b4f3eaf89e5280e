//! Calls that start no job, and what refused calls say.

use std::time::Duration;

use quantd_client::v1::{
    ConfigStatus, Engine, GptqConfig, InspectCheckpointRequest, MethodConfig,
    PlanQuantizationRequest, QuantizationSpec, QuantizeRequest,
};
use quantd_client::{Client, Code, method, v1};

use crate::server::Server;

fn names<'a>(tensors: impl IntoIterator<Item = &'a v1::TensorInfo>) -> Vec<&'a str> {
    tensors
        .into_iter()
        .map(|tensor| tensor.name.as_str())
        .collect()
}

#[tokio::test]
async fn capabilities_list_all_methods() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client();
    client
        .wait_until_serving(Duration::from_secs(20))
        .await
        .unwrap();
    let capabilities = client.capabilities().await.unwrap();
    assert_eq!(capabilities.methods.len(), 6);
    assert_eq!(capabilities.server.unwrap().api_versions, ["quantd.v1"]);
    let refreshed = client.refreshed_capabilities().await.unwrap();
    assert_eq!(refreshed.packages, capabilities.packages);
}

#[tokio::test]
async fn inspecting_reads_all_pages() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client();
    let source = server.write_llama("inspected", 2);
    let bare = client.inspect(source.as_str()).await.unwrap();
    assert_eq!(bare.checkpoint.unwrap().model_type, "llama");
    assert!(bare.tensors.is_empty());
    assert!(
        bare.loads
            .iter()
            .any(|load| load.engine() == Engine::Transformers)
    );

    let request = InspectCheckpointRequest::new(&source).with_tensors();
    let whole = client.inspect(request.clone()).await.unwrap();
    assert_eq!(whole.tensors.len(), 2 + 9 * 2);
    let in_small_pages = InspectCheckpointRequest {
        page_size: 3,
        ..request
    };
    let paged = client.inspect(in_small_pages.clone()).await.unwrap();
    assert_eq!(paged.tensors, whole.tensors);
    assert_eq!(paged.next_page_token, "");
    let page = client.inspect_page(in_small_pages).await.unwrap();
    assert_eq!(names(&page.tensors), names(&whole.tensors[..3]));
    assert_ne!(page.next_page_token, "");

    let asked = [1000, 2000]
        .map(|tokens| InspectCheckpointRequest::new(&source).with_context_length(tokens));
    let mut cache = Vec::new();
    for request in asked {
        cache.push(client.inspect(request).await.unwrap().loads[0].kv_cache_bytes);
    }
    assert_eq!(cache[0] * 2, cache[1]);
}

#[tokio::test]
async fn a_plan_says_what_would_happen_and_what_stands_against_it() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client();
    let source = server.write_llama("planned", 2);
    let spec = QuantizationSpec::new(&source, "", method::bitsandbytes_8bit());
    let bare = client.plan(spec.clone()).await.unwrap();
    assert!(bare.executable);
    assert!(bare.tensors.is_empty());
    let request = PlanQuantizationRequest::from(spec.clone()).with_tensors();
    let whole = client.plan(request.clone()).await.unwrap();
    assert_eq!(whole.tensors.len(), 20);
    let in_small_pages = PlanQuantizationRequest {
        page_size: 7,
        ..request
    };
    let paged = client.plan(in_small_pages.clone()).await.unwrap();
    assert_eq!(paged.tensors, whole.tensors);
    let page = client.plan_page(in_small_pages).await.unwrap();
    assert_eq!(page.tensors, whole.tensors[..7]);

    let refused = client
        .plan(spec.with_serve_target(Engine::LlamaCpp))
        .await
        .unwrap();
    assert!(!refused.executable);
    assert_eq!(refused.findings[0].reason, "ENGINE_CANNOT_READ");
}

#[tokio::test]
async fn a_configuration_is_parsed() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client();
    let text = r#"{"quant_method": "gptq", "bits": 4, "group_size": 64}"#;
    let parsed = client.parse_config(text).await.unwrap();
    assert_eq!(parsed.status(), ConfigStatus::Served);
    let expected: MethodConfig = GptqConfig {
        bits: Some(4),
        group_size: Some(64),
        ..Default::default()
    }
    .into();
    assert_eq!(parsed.method, Some(expected));
    let error = client.parse_config("[").await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::InvalidArgument, "CONFIG_NOT_JSON")
    );
}

#[tokio::test]
async fn everything_wrong_is_said_at_once() {
    let Some(server) = Server::shared() else {
        return;
    };
    let spec = QuantizationSpec::new("", "", method::gptq(5, 100));
    let error = server.client().quantize(spec).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let fields: Vec<_> = error
        .violations()
        .iter()
        .map(|it| it.field.as_str())
        .collect();
    for field in [
        "spec.source_uri",
        "spec.method.gptq.bits",
        "spec.method.gptq.group_size",
    ] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
        assert!(error.to_string().contains(field), "{error}");
    }
    assert!(
        error
            .violations()
            .iter()
            .all(|it| !it.reason.is_empty() && !it.message.is_empty())
    );
    assert_eq!(
        error.metadata()["violation_count"],
        error.violations().len().to_string()
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn what_is_not_there_and_what_stands_in_the_way_are_different_errors() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client();
    let absent = client.inspect(server.path("absent")).await.unwrap_err();
    assert_eq!(
        (absent.code(), absent.reason()),
        (Code::NotFound, "SOURCE_NOT_FOUND")
    );
    assert_ne!(absent.request_id(), "");
    assert_ne!(absent.remedy(), "");
    assert!(absent.message().ends_with(absent.remedy()));

    let source = server.write_llama("quantized", 1);
    let (spec, taken) = (
        |output: &str| QuantizationSpec::new(&source, output, method::bitsandbytes_8bit()),
        server.path("taken"),
    );
    std::fs::create_dir_all(format!("{taken}/folder")).unwrap();
    let error = client.quantize(spec(&taken)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::FailedPrecondition, "OUTPUT_NOT_EMPTY")
    );
    assert_eq!(error.preconditions()[0].reason, "OUTPUT_NOT_EMPTY");
    assert_eq!(error.preconditions()[0].subject, "spec.output_uri");
}

#[tokio::test]
async fn a_call_ends_at_its_time_limit() {
    let Some(server) = Server::shared() else {
        return;
    };
    let client = server.client().with_timeout(Duration::from_micros(1));
    let error = client.capabilities().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    client.with_timeout(None).capabilities().await.unwrap();
}

#[tokio::test]
async fn a_request_of_labels_is_checked_by_the_server() {
    let Some(server) = Server::shared() else {
        return;
    };
    let source = server.write_llama("labelled", 1);
    let spec = QuantizationSpec::new(source, server.path("out"), method::bitsandbytes_8bit());
    let request = QuantizeRequest::from(spec).with_label("Not a label", "");
    let error = server.client().quantize(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let error = Client::connect("unix:/absent/socket").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.is_retryable());
    let said = error.to_string();
    assert_eq!(said, "UNAVAILABLE: No such file or directory (os error 2)");
    let client = Client::builder("unix:/absent/socket").build().unwrap();
    let waited = client.wait_until_serving(Duration::from_millis(150)).await;
    assert_eq!(waited.unwrap_err().code(), Code::Unavailable);
}
