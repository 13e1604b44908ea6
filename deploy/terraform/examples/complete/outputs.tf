locals {
  state_uri = "s3://${module.bucket.name}/${trimsuffix(local.state_prefix, "/")}"

  placements = { for name, pool in module.eks.pools : name => {
    nodeSelector = pool.node_selector
    tolerations  = pool.tolerations
  } }
}

output "state_uri" {
  description = "state.uri of the configuration."
  value       = local.state_uri
}

output "models_uri" {
  description = "Where models lie, for model.name = \"s3://…\" and for the SageMaker endpoint."
  value       = "s3://${module.bucket.name}/${trimsuffix(local.models_prefix, "/")}"
}

output "bucket" {
  description = "Bucket of state, models and request files."
  value       = module.bucket.name
}

output "region" {
  description = "Region: state.storage.region and model.remote.region of the configuration."
  value       = var.region
}

output "cluster_name" {
  description = "For aws eks update-kubeconfig, and for the autoscaler's discovery."
  value       = module.eks.name
}

output "run_role_arn" {
  description = "Annotation eks.amazonaws.com/role-arn of the service accounts of runs."
  value       = module.run_role.arn
}

output "serve_role_arn" {
  description = "Annotation eks.amazonaws.com/role-arn of the service accounts that serve."
  value       = module.serve_role.arn
}

output "secrets_role_arn" {
  description = "Annotation of External Secrets' service account; null without secrets."
  value       = one(module.secrets_role[*].arn)
}

output "autoscaler_role_arn" {
  description = "Annotation of the service account kube-system/cluster-autoscaler."
  value       = module.eks.autoscaler_role_arn
}

output "pools" {
  description = "Node labels (for Kueue's ResourceFlavors), node selector and tolerations of each pool."
  value       = module.eks.pools
}

output "images" {
  description = "Repository of each image."
  value       = module.registry.urls
}

output "batch_role_arn" {
  description = "Role that a job of Bedrock's batch inference is given."
  value       = module.bedrock.batch_role_arn
}

output "batch_uri" {
  description = "Where request files of batch inference lie."
  value       = module.bedrock.batch_uri
}

output "sagemaker_endpoint" {
  description = "model.remote.model of the configuration; null without an endpoint."
  value       = one(module.sagemaker[*].endpoint_name)
}

output "alarm_topic_arn" {
  description = "Topic of the budget's alarms."
  value       = module.budget.topic_arn
}

# terraform output -json helm_values > values-aws.json, for helm upgrade --values.
output "helm_values" {
  description = "Values of deploy/helm/embedmill that this makes: store, roles, and where pods run."
  value = {
    objectStore = { uri = local.state_uri, region = var.region }

    accounts = {
      job   = { annotations = { "eks.amazonaws.com/role-arn" = module.run_role.arn } }
      spark = { annotations = { "eks.amazonaws.com/role-arn" = module.run_role.arn } }
      serve = { annotations = { "eks.amazonaws.com/role-arn" = module.serve_role.arn } }
    }

    cronJobs = local.placements.head
    ray = {
      head   = local.placements.head
      worker = merge(local.placements[var.encode_on], { gpus = var.encode_on == "gpu" ? 1 : 0 })
    }
    spark = { driver = local.placements.head, executor = local.placements.cpu }
    # A query waits for no spot node to come back.
    serve = { head = local.placements.head, worker = local.placements.head }
  }
}
