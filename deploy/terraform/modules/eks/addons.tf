# Before the nodes, which are not ready without a network. It enforces NetworkPolicies only where it is told to.
resource "aws_eks_addon" "network" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "vpc-cni"
  configuration_values        = jsonencode({ enableNetworkPolicy = "true" })
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "PRESERVE"
}

resource "aws_eks_addon" "this" {
  for_each = toset(["coredns", "kube-proxy"])

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "PRESERVE"

  depends_on = [aws_eks_node_group.pool]
}

resource "aws_eks_addon" "volumes" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "aws-ebs-csi-driver"
  service_account_role_arn    = module.volumes_role.arn
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "PRESERVE"

  depends_on = [aws_eks_node_group.pool]
}

module "volumes_role" {
  source = "../irsa"

  name              = "${var.name}-ebs-csi"
  description       = "Driver that makes volumes for claims, as of the index"
  region            = var.region
  oidc_provider_arn = aws_iam_openid_connect_provider.this.arn
  oidc_issuer       = aws_eks_cluster.this.identity[0].oidc[0].issuer
  namespace         = "kube-system"
  service_accounts  = ["ebs-csi-controller-sa"]
  policies          = { driver = "arn:${var.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy" }
}

module "autoscaler_role" {
  source = "../irsa"

  name              = "${var.name}-autoscaler"
  description       = "Cluster autoscaler: nodes of the pools of ${var.name}"
  region            = var.region
  oidc_provider_arn = aws_iam_openid_connect_provider.this.arn
  oidc_issuer       = aws_eks_cluster.this.identity[0].oidc[0].issuer
  namespace         = "kube-system"
  service_accounts  = ["cluster-autoscaler"]
  policies          = { pools = aws_iam_policy.autoscaler.arn }
}

resource "aws_iam_policy" "autoscaler" {
  name        = "${var.name}-autoscaler"
  description = "Sees scaling groups, and changes those of the cluster ${var.name}"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # AWS takes no resource for these.
        Sid    = "See"
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*"
      },
      {
        Sid      = "SeePools"
        Effect   = "Allow"
        Action   = ["eks:DescribeNodegroup"]
        Resource = "arn:${var.partition}:eks:${var.region}:${var.account_id}:nodegroup/${var.name}/*/*"
      },
      {
        Sid       = "Scale"
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = "arn:${var.partition}:autoscaling:${var.region}:${var.account_id}:autoScalingGroup:*:autoScalingGroupName/eks-*"
        Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}" = "owned" } }
      },
    ]
  })
}
