variable "name" {
  description = "Name of the cluster, and what the names of its roles begin with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "name has 2 to 40 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, or null for the newest of EKS when the cluster is made."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is a minor version, as in 1.33."
  }
}

variable "subnet_ids" {
  description = "Private subnet of each availability zone, at least two."
  type        = map(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids has two zones or more."
  }
}

variable "public_access_cidrs" {
  description = "Addresses that reach the API from the internet; none by default: the API answers inside the VPC alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "public_access_cidrs are ranges of IPv4, and not all of it."
  }
}

variable "admin_role_arns" {
  description = "Roles that administer the cluster, by a name. Without one nobody can."
  type        = map(string)

  validation {
    condition     = length(var.admin_role_arns) > 0 && alltrue([for arn in values(var.admin_role_arns) : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", arn))])
    error_message = "admin_role_arns has one ARN of a role or more."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the Secrets of Kubernetes and the control plane's log. It is one with logs = true (module key)."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "log_days" {
  description = "Days for which the control plane's log is kept."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_days)
    error_message = "log_days is a retention that CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the cluster. Set it to false, and apply, before a destroy."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of the nodes and their volumes, which do not get the provider's."
  type        = map(string)
  default     = {}
}

variable "pools" {
  description = <<-EOT
    Node pools by name. `capacity` is ON_DEMAND or SPOT; `dedicated` keeps other pods away by a taint; `gpu` takes the
    NVIDIA image and its taint, with `gpus` in each node; `zones` are some of subnet_ids' zones, null for all.
  EOT
  type = map(object({
    capacity       = string
    instance_types = list(string)
    min            = number
    max            = number
    disk_gb        = optional(number, 100)
    dedicated      = optional(bool, true)
    gpu            = optional(bool, false)
    gpus           = optional(number, 0)
    zones          = optional(list(string))
  }))
  default = {
    system = { capacity = "ON_DEMAND", instance_types = ["m7i.large"], min = 2, max = 4, disk_gb = 50, dedicated = false }
    head   = { capacity = "ON_DEMAND", instance_types = ["m7i.xlarge"], min = 0, max = 4 }
    cpu    = { capacity = "SPOT", instance_types = ["m7i.2xlarge", "m6i.2xlarge", "m7a.2xlarge", "m6a.2xlarge"], min = 0, max = 20 }
    gpu    = { capacity = "SPOT", instance_types = ["g6.2xlarge", "g5.2xlarge"], min = 0, max = 8, disk_gb = 200, gpu = true, gpus = 1 }
  }

  validation {
    condition     = alltrue([for name in keys(var.pools) : can(regex("^[a-z][a-z0-9-]{0,30}$", name))])
    error_message = "a pool's name has small letters, digits and hyphens, 31 at most."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : contains(["ON_DEMAND", "SPOT"], pool.capacity)])
    error_message = "capacity is ON_DEMAND or SPOT."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.min >= 0 && pool.max >= 1 && pool.min <= pool.max])
    error_message = "a pool's min is 0 or more, and its max 1 or more and no less than min."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : length(pool.instance_types) > 0])
    error_message = "a pool names one instance type or more."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.gpu == (pool.gpus > 0)])
    error_message = "a pool with gpu has gpus, how many a node has, and no other pool has."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.disk_gb >= 30])
    error_message = "disk_gb is 30 or more: images with CUDA do not fit into less."
  }

  validation {
    condition     = anytrue([for pool in values(var.pools) : pool.capacity == "ON_DEMAND" && pool.min >= 1 && !pool.dedicated && !pool.gpu])
    error_message = "one pool is on demand, has a node always and no taint: the cluster's own pods run there."
  }
}

variable "account_id" {
  description = "AWS account that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id has 12 digits."
  }
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
  }
}

variable "partition" {
  description = "AWS partition, aws or aws-us-gov: in China services have other names."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov"], var.partition)
    error_message = "partition is aws or aws-us-gov."
  }
}
