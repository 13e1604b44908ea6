output "name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "Address of the cluster's API."
  value       = aws_eks_cluster.this.endpoint
}

output "oidc_provider_arn" {
  description = "ARN of the OIDC provider, for the module irsa."
  value       = aws_iam_openid_connect_provider.this.arn
}

output "oidc_issuer" {
  description = "The cluster's issuer, for the module irsa."
  value       = aws_eks_cluster.this.identity[0].oidc[0].issuer
}

output "autoscaler_role_arn" {
  description = "Role of the service account kube-system/cluster-autoscaler."
  value       = module.autoscaler_role.arn
}

output "pools" {
  description = "What pods select and tolerate, by pool; node_labels are those of a Kueue ResourceFlavor."
  value = { for name in keys(var.pools) : name => {
    node_labels   = local.labels[name]
    node_selector = { "embedmill/pool" = name }
    tolerations = [for taint in local.taints[name] : {
      key = taint.key, operator = "Equal", value = taint.value, effect = "NoSchedule"
    }]
  } }
}
