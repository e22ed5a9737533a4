//! Who is let in, against a server that is running.

use super::admin::{Admin, within};
use super::agent::Node;
use anyhow::Result;
use lockstep_apis::v1alpha::{
    CreateTokenRequest, DeleteRequest, ListRequest, Object, ObjectRef, RunRequest, StatusRequest,
};
use lockstep_daemon::identity::tokens;
use lockstep_grpc::channel;
use lockstep_grpc::cluster_admin_client::ClusterAdminClient;
use lockstep_grpc::objects_client::ObjectsClient;
use lockstep_grpc::runs_client::RunsClient;
use tonic::Code;

#[tokio::test]
async fn nobody_and_nodes_get_no_object_and_no_run() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let token = admin.cluster().create_token(CreateTokenRequest::default()).await?.into_inner().token;
    let nobody = channel::connect_pinned(admin.daemon.address(), tokens::parse(&token)?.pin).await?.channel;
    for (who, channel, expected) in
        [("nobody", nobody, Code::Unauthenticated), ("a node", node.channel().await?, Code::PermissionDenied)]
    {
        let list = ListRequest { kind: "Node".into(), ..ListRequest::default() };
        let listed = ObjectsClient::new(channel.clone()).list(list).await.map(|_| ());
        assert_eq!(listed.map_err(|status| status.code()), Err(expected), "{who} lists");
        let cancelled = RunsClient::new(channel.clone()).cancel(RunRequest::default()).await.map(|_| ());
        assert_eq!(cancelled.map_err(|status| status.code()), Err(expected), "{who} cancels");
        let status = ClusterAdminClient::new(channel).status(StatusRequest {}).await.map(|_| ());
        assert_eq!(status.map_err(|status| status.code()), Err(expected), "{who} asks for the status");
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_node_is_cut_off_at_once_and_stays_out() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut agent = node.attach("first").await?;
    let reference = ObjectRef { kind: "Node".into(), name: "a".into(), ..ObjectRef::default() };
    admin.objects().delete(DeleteRequest { r#ref: Some(reference), ..DeleteRequest::default() }).await?;
    agent.hear_the_end().await?;
    assert!(node.attach("second").await.is_err(), "its certificate is still good, but it is no node any more");
    // The name may be used again, by another.
    let again = Node::join(&admin, "a").await?;
    assert_ne!(again.uid, node.uid);
    again.attach("third").await?;
    assert!(node.attach("fourth").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_second_attach_of_a_node_ends_the_first() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let mut first = node.attach("first").await?;
    let _second = node.attach("second").await?;
    first.hear_the_end().await
}

#[tokio::test]
async fn a_node_that_leaves_is_told_of_as_unreachable() -> Result<()> {
    let admin = Admin::start().await?;
    let node = Node::join(&admin, "a").await?;
    let agent = node.attach("first").await?;
    let liveness = async |wanted: &str| {
        within(&format!("node a to be {wanted}"), async {
            let request =
                lockstep_apis::v1alpha::WatchRequest { kind: "Node".into(), name: "a".into(), ..Default::default() };
            let mut changes = admin.objects().watch(request).await?.into_inner();
            while let Some(change) = changes.message().await? {
                if let Some(Object { kind: Some(lockstep_apis::v1alpha::object::Kind::Node(node)) }) = change.object
                    && node.status.is_some_and(|status| status.liveness == wanted)
                {
                    return Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        })
        .await
    };
    liveness("Ready").await?;
    drop(agent);
    liveness("Unreachable").await?;
    let _back = node.attach("second").await?;
    liveness("Ready").await
}
