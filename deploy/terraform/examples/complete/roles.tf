locals {
  # Known only where there is an endpoint; a map's keys must be known before it is made.
  sagemaker_policies = var.sagemaker == null ? {} : { sagemaker = module.sagemaker[0].invoke_policy_arn }
}

# Runs, reindexes, purges: read and write the state, read models, ask services.
module "run_role" {
  source = "../../modules/irsa"

  name              = "${var.name}-run"
  description       = "embedmill's runs: state and request files read and written, models read"
  region            = var.region
  oidc_provider_arn = module.eks.oidc_provider_arn
  oidc_issuer       = module.eks.oidc_issuer
  namespace         = var.namespace
  service_accounts  = var.service_accounts.run

  buckets = merge({
    data = {
      arn            = module.bucket.arn
      kms_key_arn    = module.data_key.arn
      read_prefixes  = [local.models_prefix]
      write_prefixes = [local.state_prefix, local.batch_prefix]
    }
  }, var.source_buckets)

  policies = merge(
    { invoke = module.bedrock.invoke_policy_arn, batch = module.bedrock.batch_policy_arn },
    local.sagemaker_policies,
  )
}

# The query side: reads, and asks for the vector of a query.
module "serve_role" {
  source = "../../modules/irsa"

  name              = "${var.name}-serve"
  description       = "embedmill's query side: state and models read"
  region            = var.region
  oidc_provider_arn = module.eks.oidc_provider_arn
  oidc_issuer       = module.eks.oidc_issuer
  namespace         = var.namespace
  service_accounts  = var.service_accounts.serve

  buckets = {
    data = {
      arn           = module.bucket.arn
      kms_key_arn   = module.data_key.arn
      read_prefixes = [local.state_prefix, local.models_prefix]
    }
  }

  policies = merge({ invoke = module.bedrock.invoke_policy_arn }, local.sagemaker_policies)
}

# External Secrets: the index's token, the hash key, a service's key.
module "secrets_role" {
  source = "../../modules/irsa"
  count  = length(var.secret_arns) > 0 ? 1 : 0

  name              = "${var.name}-secrets"
  description       = "External Secrets: reads the secrets of embedmill alone"
  region            = var.region
  oidc_provider_arn = module.eks.oidc_provider_arn
  oidc_issuer       = module.eks.oidc_issuer
  namespace         = var.secrets_account.namespace
  service_accounts  = [var.secrets_account.name]
  secrets           = var.secret_arns
}
